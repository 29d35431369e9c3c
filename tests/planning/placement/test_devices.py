"""GPUs that come and go: when a node is trusted again, in one process and over a restart, and what its pool says."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from builders import GPU, NOW, a_node, a_pool, a_snapshot
from stokehold.api.v1alpha1.gpu_node_pool import GPUNodePoolStatus
from stokehold.cluster.indexes import Nodes
from stokehold.model.actions import WriteStatus
from stokehold.model.snapshot import Node, Snapshot
from stokehold.planning.placement.devices import unsettled_nodes
from stokehold.planning.provisioning.plan import plan_provisioning
from stokehold.planning.provisioning.settings import ProvisioningSettings

SETTLE = timedelta(seconds=30)


class Process:
    """One operator's view of nodes and of the pool h100, which outlives it."""

    def __init__(self, status: GPUNodePoolStatus | None = None, after: float = 0) -> None:
        self.now = NOW + timedelta(seconds=after)
        self.status = status or GPUNodePoolStatus()
        self.events: list[str] = []
        self.writes = 0
        self._nodes = Nodes(lambda: None, lambda: self.now, SETTLE)

    def see(self, gpus: int | None, name: str = "n1", after: float = 0) -> None:
        """A node of 8 GPUs offers so many; None: the resource is not there at all."""
        self.now += timedelta(seconds=after)
        node = a_node(name, labels={"pool": "h100"})
        offers = {key: amount for key, amount in node.allocatable.items() if key != GPU}
        shown = replace(node, allocatable=offers if gpus is None else {**offers, GPU: gpus})
        self._nodes.on_upsert(("", name), None, shown)
        self._write()

    def trusts(self, name: str = "n1", after: float = 0) -> bool:
        self.now += timedelta(seconds=after)
        self._write()
        return name not in unsettled_nodes(self._snapshot())

    def lost(self) -> Mapping[str, str]:
        """By node what the pool's condition says."""
        found = [c for c in self.status.conditions if c.type == "DevicesReady" and c.status == "False"]
        return dict(part.split(": ") for c in found for part in c.message.split("; "))

    def _snapshot(self) -> Snapshot:
        pool = replace(a_pool(), status=self.status)
        nodes: list[Node] = list(self._nodes.values.values())
        return a_snapshot(nodes, used={}, node_pools=[pool], taken_at=self.now)

    def _write(self) -> None:
        for action in plan_provisioning(self._snapshot(), ProvisioningSettings()):
            assert isinstance(action, WriteStatus)
            self.writes += not action.can_wait
            self.status = GPUNodePoolStatus.model_validate(action.status)
            self.events += [note.message for note in action.notes]


def test_node_that_lost_gpus_is_trusted_once_they_have_stayed_for_the_settle_time():
    process = Process()
    process.see(8)
    assert process.trusts()
    process.see(0, after=10)
    process.see(8, after=90)

    assert not process.trusts(after=29)
    assert process.trusts(after=1)


def test_flapping_node_is_never_trusted_in_between_and_costs_one_event_and_few_writes():
    process = Process()
    process.see(8)
    before = process.writes
    for _ in range(12):
        process.see(0, after=5)
        process.see(8, after=5)
        assert not process.trusts()
        assert list(process.lost()) == ["n1"]
    assert process.trusts(after=30)

    assert process.lost() == {}
    assert len(process.events) == 1
    assert process.writes - before == 2


def test_pool_names_each_node_that_misses_gpus_with_the_numbers():
    process = Process()
    for name, gpus in (("n1", 0), ("n2", 7), ("n3", None), ("n4", 8)):
        process.see(8, name)
        process.see(gpus, name)
    assert process.trusts("n4", after=31)

    assert process.lost() == {
        "n1": "offers 0 of 8 GPUs",
        "n2": "offers 7 of 8 GPUs",
        "n3": f"offers no {GPU}",
    }


def test_new_leader_does_not_trust_a_node_that_was_flapping_when_the_old_one_died():
    old = Process()
    old.see(8)
    old.see(0)
    old.see(8, after=5)
    assert old.status.gpus_missing_on == ("n1",)
    new = Process(old.status.model_copy(update={"conditions": ()}), after=10)  # which are for people
    new.see(8)

    assert not new.trusts(after=29)
    assert new.trusts(after=1)
    assert new.lost() == {}
    assert new.status.gpus_missing_on == ()


def test_plugin_that_was_away_at_the_start_of_the_process_must_stay_too():
    process = Process()
    process.see(0)
    process.see(8, after=60)

    assert not process.trusts(after=29)
    assert process.trusts(after=1)


def test_restart_does_not_hold_back_a_node_that_is_short_of_a_gpu_for_good():
    old = Process()
    old.see(8)
    old.see(7)
    assert old.trusts(after=30)
    new = Process(old.status, after=60)
    new.see(7)

    assert new.trusts()
