"""Whose turn it is: the priority of work, by the class that it names or by the default of its kind."""

from collections.abc import Mapping

from stokehold.model.snapshot import Job, PriorityClass, ServingPool, Workspace

DEFAULT_CLASSES = {"InferencePool": "serve", "TrainingJob": "train-normal", "DevWorkspace": "workspace"}
"""The chart's PriorityClasses: serving before training before workspaces, for those who name none."""


def priority_of(owner: Job | Workspace | ServingPool, classes: Mapping[str, PriorityClass]) -> int:
    """The priority of the class it names, else of its kind's default class, else of the cluster's, else 0."""
    named = None if isinstance(owner, Workspace) else owner.spec.priority_class_name
    if named:
        return classes[named].value if named in classes else 0
    default = classes.get(DEFAULT_CLASSES[owner.KIND])
    if default is not None:
        return default.value
    # Of several defaults Kubernetes takes the lowest.
    return min((c.value for c in classes.values() if c.is_default), default=0)
