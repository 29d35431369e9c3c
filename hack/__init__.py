"""Tools of the repository: the local cluster, generation, the demo."""
