"""Volumes, claims of them, and their classes."""

from stokehold.cluster import wire
from stokehold.model.demand import Match, Terms, terms_of
from stokehold.model.snapshot import StorageClass, VolumeClaim

PLACE_LABELS = {
    "topology.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region": "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
}
"""Labels of volumes by which kube-scheduler keeps pods near them, and those of nodes that they are compared with."""

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
"""On the StorageClass of claims that name none."""

SHARED_MODES = frozenset({"ReadWriteMany", "ReadOnlyMany"})
"""Access modes in which several nodes may have a volume at once."""


def read_volume_claim(raw: wire.VolumeClaim) -> VolumeClaim:
    """The volume claim of a workspace."""
    return VolumeClaim(
        phase=raw.status.phase,
        deleting=raw.metadata.deletion_timestamp is not None,
        volume=raw.spec.volume_name,
        storage_class=raw.spec.storage_class_name,
        size=str(raw.spec.resources.requests.get("storage", "")),
        on_one_node=bool(raw.spec.access_modes) and not SHARED_MODES & set(raw.spec.access_modes),
    )


def read_volume(raw: wire.Volume) -> Terms | None:
    """From which nodes a volume can be reached; None for one that all nodes can reach."""
    affinity = raw.spec.node_affinity
    terms = terms_of(affinity.required) if affinity is not None and affinity.required else ()
    labels = raw.metadata.labels
    told = [(key, labels[label]) for label, key in PLACE_LABELS.items() if label in labels]
    places = tuple(Match(key, "In", tuple(places.split("__"))) for key, places in told)
    if places:
        terms = tuple((*term, *places) for term in terms or ((),))
    return terms or None


def read_storage_class(raw: wire.StorageClass) -> StorageClass:
    """Where volumes of a class may be made."""
    terms = tuple(
        tuple(Match(one.key, "In", tuple(one.values)) for one in term.match_label_expressions)
        for term in raw.allowed_topologies
    )
    return StorageClass(raw.metadata.name, terms, raw.metadata.annotations.get(DEFAULT_CLASS) == "true")
