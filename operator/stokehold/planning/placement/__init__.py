"""Would it fit, and where best: the ledger that all planners share."""
