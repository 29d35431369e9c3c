"""Which nodes to buy, follow and give back: burst on queue length, whole gangs or nothing."""
