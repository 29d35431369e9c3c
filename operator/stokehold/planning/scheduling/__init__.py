"""TrainingJobs: who starts where, who waits and why, what comes after an attempt."""
