"""The kinds of stokehold.dev/v1alpha1, one module each."""
