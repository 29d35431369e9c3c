"""Who else has written a Deployment, from managedFields as the API server gives them."""

from stokehold.cluster.ownership import REPLICAS, TEMPLATE, other_writer
from stokehold.cluster.wire import ManagedFields

OURS = ManagedFields(
    "stokehold",
    {
        "f:spec": {
            "f:replicas": {},
            "f:template": {"f:spec": {"f:containers": {'k:{"name":"main"}': {".": {}, "f:image": {}}}}},
        }
    },
)


def writes(manager: str, **spec: object) -> ManagedFields:
    return ManagedFields(manager, {"f:spec": {f"f:{key}": value for key, value in spec.items()}})


def test_nobody_else_writes_what_only_we_have_written():
    status = ManagedFields("kube-controller-manager", {"f:status": {"f:replicas": {}}})

    assert other_writer([OURS, status], "stokehold", REPLICAS) == ""
    assert other_writer([OURS, status], "stokehold", TEMPLATE) == ""


def test_a_number_that_was_taken_over_names_its_writer():
    ours = ManagedFields("stokehold", {"f:spec": {"f:template": {}}})

    assert other_writer([ours, writes("kubectl", replicas={})], "stokehold", REPLICAS) == "kubectl"


def test_what_both_have_written_is_no_quarrel():
    assert other_writer([OURS, writes("gitops", replicas={})], "stokehold", REPLICAS) == ""


def test_a_field_that_somebody_added_to_the_pods_names_its_writer_and_a_restart_does_not():
    added = writes("edit", template={"f:spec": {"f:containers": {'k:{"name":"main"}': {"f:resources": {}}}}})
    restart = writes("kubectl-rollout", template={"f:metadata": {"f:annotations": {"f:kubectl.kubernetes.io/x": {}}}})

    assert other_writer([OURS, added], "stokehold", TEMPLATE) == "edit"
    assert other_writer([OURS, restart], "stokehold", TEMPLATE) == ""
