"""One object of the API server -> one value of the model. Pure; all tolerance for odd objects is here."""
