"""Whatever happens in whatever order, late writes of an old leader included: each job ends once, and nothing stays."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from builders import NOW, a_node, a_pod
from kit.world import World, overbooked
from stokehold.model.actions import Action, AdmitJob, FinishJob
from stokehold.model.pods import Pod
from stokehold.model.snapshot import Job, Namespace
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

SETTINGS = SchedulingSettings()
gpus = st.integers(0, 4)
MOST_ROUNDS = 40


class Histories(RuleBasedStateMachine):
    """A few nodes and jobs; `old` are plans of a leader that was too slow to carry them out."""

    old = Bundle("old")

    @initialize(sizes=st.lists(st.integers(1, 8), min_size=1, max_size=4))
    def begin(self, sizes: list[int]) -> None:
        self.world = World(NOW)
        self.world.add_namespace(Namespace("team", {}))
        self.failures: Counter[str] = Counter()
        self.ended: dict[str, tuple[str, int]] = {}
        for i, gpus in enumerate(sizes):
            self.world.add_node(a_node(f"n{i}", gpus=gpus))

    # What users do.

    @rule(
        workers=st.integers(1, 3), gpus=gpus, restarts=st.integers(0, 2), name=st.integers(0, 3), elastic=st.booleans()
    )
    def apply(self, workers: int, gpus: int, restarts: int, name: int, elastic: bool) -> None:
        if ("team", f"j{name}") not in self.world.jobs:
            spec = {"numNodes": workers, "gpusPerNode": gpus, "failurePolicy": {"maxRestarts": restarts}}
            self.world.add_job("team", f"j{name}", spec | ({"minNodes": 1} if elastic else {}))

    @rule(pick=st.integers(0, 9), gpus=gpus)
    def edit(self, pick: int, gpus: int) -> None:
        if job := self._a_job(pick):
            self.world.edit_job(job.key, gpus_per_node=gpus)

    @rule(pick=st.integers(0, 9), suspend=st.booleans())
    def suspend(self, pick: int, suspend: bool) -> None:
        if job := self._a_job(pick):
            self.world.edit_job(job.key, suspend=suspend)

    @rule(pick=st.integers(0, 9), collected=st.booleans())
    def delete(self, pick: int, collected: bool) -> None:
        if job := self._a_job(pick):
            self.world.delete_job(job.key, collected=collected)

    @rule(name=st.integers(0, 3), attempt=st.integers(1, 2), index=st.integers(0, 2))
    def take_a_name(self, name: int, attempt: int, index: int) -> None:
        pod = a_pod(f"j{name}-{attempt}-{index}", namespace="team", node="elsewhere", owner_uid="somebody")
        if pod.key not in self.world.pods:
            self.world.add_pod(pod)

    @rule(pick=st.integers(0, 9))
    def wipe_status(self, pick: int) -> None:
        job = self._a_job(pick)
        if job and job.proof is not None:
            self.world.change_job(job.key, status=type(job.status)())

    # What the cluster does.

    @rule()
    def bind_and_start(self) -> None:
        self.world.bind_and_start()

    @rule()
    def finish_deletions(self) -> None:
        self.world.finish_deletions()

    @rule(pick=st.integers(0, 99), how=st.sampled_from(["well", "badly", "refused", "deleted"]))
    def end(self, pick: int, how: str) -> None:
        running = [pod for pod in self.world.pods.values() if pod.worker and pod.phase == "Running"]
        if not running:
            return
        pod = running[pick % len(running)]
        if how == "well":
            self.world.end_pod(pod, "Succeeded")
        elif how == "badly":
            self.failures[pod.owner_uid] += 1
            self.world.end_pod(pod, "Failed", 1, "Error")
        elif how == "refused":
            self.world.end_pod(pod, "Failed", None, "UnexpectedAdmissionError")
        else:
            self.world.delete_pod(pod)

    @rule(pick=st.integers(0, 9), what=st.sampled_from(["cordon", "uncordon", "lose"]))
    def change_node(self, pick: int, what: str) -> None:
        nodes = list(self.world.cluster.nodes.values.values())
        if not nodes:
            self.world.add_node(a_node("n9"))
        elif what == "lose":
            self.world.remove_node(nodes[pick % len(nodes)].name)
        else:
            self.world.add_node(replace(nodes[pick % len(nodes)], unschedulable=what == "cordon"))

    @rule(seconds=st.sampled_from([1, 8, 30, 90, 900]))
    def pass_time(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    # What leaders do.

    @rule()
    def carry_out(self) -> None:
        """As a rule the leader sees all, decides, and carries it out whole."""
        for action in self._plan():
            self.world.carry_out([action])
            if isinstance(action, AdmitJob):
                self._is_not_over(action.job)
        self._check_attempts()

    @rule(sizes=st.lists(st.integers(0, 3), max_size=6))
    def carry_out_in_part(self, sizes: list[int]) -> None:
        self.world.carry_out_in_part(self._plan(), sizes)

    @rule(target=old)
    def only_plan(self) -> list[Action]:
        return self._plan()

    @rule(plan=consumes(old))
    def carry_out_late(self, plan: list[Action]) -> None:
        self.world.carry_out(plan)

    # What must hold.

    @invariant()
    def what_is_over_stays_so(self) -> None:
        if not hasattr(self, "world"):
            return
        for job in self.world.jobs.values():
            proof = job.proof
            if proof is not None:
                told = self.ended.setdefault(job.uid, (proof.outcome, proof.attempt))
                assert told == (proof.outcome, proof.attempt)
            restarts = job.status.restarts or 0
            assert restarts <= min(job.spec.failure_policy.max_restarts, self.failures[job.uid])

    def teardown(self) -> None:
        """The faults stop: all work that can end ends, well; then all is deleted, and nothing stays."""
        if not hasattr(self, "world"):
            return
        world = self.world
        for squatter in [pod for pod in world.pods.values() if not pod.worker and pod.name.endswith("-0")]:
            world.remove_pod(squatter.key)  # the others cost their gangs an attempt, not more
        for node in list(world.cluster.nodes.values.values()):
            world.add_node(replace(node, unschedulable=False))
        for key in list(world.jobs):
            world.edit_job(key, suspend=False)
        self._run_until(self._is_at_rest)
        self.world.carry_out(self._plan())
        assert [pod.name for pod in world.pods.values() if pod.tracked and self._is_of_the_past(pod)] == []
        for key in list(world.jobs):
            world.delete_job(key)
        self._run_until(lambda: not any(pod.worker for pod in world.pods.values()))
        assert self._plan() == []

    def _run_until(self, holds: Callable[[], bool]) -> None:
        for _ in range(MOST_ROUNDS):
            self.world.carry_out(self._plan())
            if holds():
                return
            self.world.now += timedelta(seconds=30)
            self.world.finish_deletions()
            self.world.bind_and_start()
            for pod in list(self.world.pods.values()):
                if pod.worker and pod.phase == "Running":
                    self.world.end_pod(pod, "Succeeded")
            self._forget_lost_pods()
        raise AssertionError([(job.name, job.status, job.pods) for job in self.world.snapshot().jobs.values()])

    def _forget_lost_pods(self) -> None:
        """Kubernetes' pod garbage collector: a pod whose node is gone is asked to go, and has failed."""
        for pod in list(self.world.pods.values()):
            if pod.worker and pod.bound and pod.node not in self.world.cluster.nodes.values and not pod.is_over:
                self.world.end_pod(pod, "Failed", None, "NodeLost")
                self.world.delete_pod(self.world.pods.get(pod.key, pod))

    def _is_of_the_past(self, pod: Pod) -> bool:
        job = next(job for job in self.world.jobs.values() if job.uid == pod.owner_uid)
        return job.proof is not None or (pod.worker is not None and pod.worker.attempt < (job.status.attempt or 1))

    def _is_at_rest(self) -> bool:
        snapshot = self.world.snapshot()
        return not snapshot.orphans and all(self._is_settled(job) for job in snapshot.jobs.values())

    def _is_settled(self, job: Job) -> bool:
        """Over, or too large for what is left of the cluster."""
        nodes = self.world.cluster.nodes.values.values()
        gpus = job.spec.gpus_per_node
        room = sum(node.allocatable["nvidia.com/gpu"] // gpus for node in nodes) if gpus else 999 * len(nodes)
        return job.status.phase in ("Succeeded", "Failed") or room < (job.spec.min_nodes or job.spec.num_nodes)

    def _plan(self) -> list[Action]:
        snapshot = self.world.snapshot()
        actions = list(plan_scheduling(snapshot, SETTINGS))
        assert overbooked(snapshot, actions) == []
        finishing = Counter(action.job.uid for action in actions if isinstance(action, FinishJob))
        assert max(finishing.values(), default=1) == 1
        return actions

    def _is_not_over(self, job: Job) -> None:
        assert job.uid not in self.ended, f"{job.name} ran again"

    def _check_attempts(self) -> None:
        """After a whole plan all live workers of a job belong to one attempt, and none to a job that is over."""
        for job in self.world.snapshot().jobs.values():
            live = [pod for pod in job.pods if not pod.is_over and pod.terminating_since is None]
            attempts = {pod.worker.attempt for pod in live if pod.worker}
            assert len(attempts) <= 1
            if attempts == {job.status.attempt or 1}:
                self._is_of_one_plan(live)
            assert not (attempts and job.proof is not None and not self._just_ended(job, live))

    def _is_of_one_plan(self, live: list[Pod]) -> None:
        lead = next((pod for pod in live if pod.worker and pod.worker.placement), None)
        workers = [(pod, pod.worker) for pod in live if pod.worker]
        assert len({tuple(pod.requests.items()) for pod, _ in workers}) <= 1
        assert len({worker.gang_size for _, worker in workers}) <= 1
        if lead and lead.worker:
            assert all(pod.node == lead.worker.placement[worker.index] for pod, worker in workers)

    def _just_ended(self, job: Job, live: list[Pod]) -> bool:
        """The plan that ends a job leaves its last workers to the next plan."""
        return all(pod.worker and pod.worker.attempt == job.status.attempt for pod in live)

    def _a_job(self, pick: int) -> Job | None:
        jobs = list(self.world.jobs.values())
        return jobs[pick % len(jobs)] if jobs else None


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=40)
