"""What users write: the kinds of stokehold.dev as frozen pydantic models. No I/O."""
