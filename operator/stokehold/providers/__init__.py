"""Where bought nodes come from: one module for each provider, behind one small protocol."""
