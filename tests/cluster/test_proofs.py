"""The annotation that proves a job's end: it counts for the job of that name, wherever it is restored, and no other."""

import pytest

from builders import NOW
from stokehold.api.names import FINISHED_ANNOTATION
from stokehold.cluster.own_kinds import proof_text, read_job
from stokehold.cluster.wire import Metadata, OwnKind
from stokehold.model.snapshot import Job, Proof

PROOF = Proof("Succeeded", 2, 1, NOW, "Succeeded", "all workers succeeded")
BEFORE_NAMES = proof_text(PROOF, "")


def read(name: str, annotation: str, namespace: str = "team-a") -> Job:
    meta = Metadata(name, uid="u", namespace=namespace, annotations={FINISHED_ANNOTATION: annotation})
    job = read_job(OwnKind(meta, {"image": "x"}))
    assert isinstance(job, Job)
    return job


@pytest.mark.parametrize("namespace", ["team-a", "restored"])
@pytest.mark.parametrize("annotation", [proof_text(PROOF, "llama"), BEFORE_NAMES])
def test_job_that_has_ended_and_is_restored_from_a_backup_is_not_run_again(annotation: str, namespace: str):
    assert read("llama", annotation, namespace).proof == PROOF


def test_copy_of_its_manifest_under_another_name_is_another_job():
    assert read("llama-2", proof_text(PROOF, "llama")).proof is None


def test_proof_that_nobody_can_read_still_says_that_the_job_has_ended():
    assert read("llama", "{").proof is not None
