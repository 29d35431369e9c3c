"""`make demo`: the whole story on a local cluster, each step checked."""
