"""What a real API server takes and refuses by itself: nothing of ours but the CRDs is involved."""

import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hack.cluster import LocalCluster
from hack.cluster.api import MERGE_PATCH, AdminApi, ApiError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from api.manifests import BAD, GOOD, Bad, Manifest, kind_of
from stokehold.api.crd import manifest as crd_of
from stokehold.api.v1alpha1 import TrainingJob

pytestmark = pytest.mark.cluster

DRY_RUN = "dryRun=All&fieldValidation=Strict"
NAMESPACE = "api-manifests"
SAMPLE = [bad for bad in BAD if not bad.says[0].startswith("metadata.")][::30]

# Texts near the edges of what is allowed: most of them are wrong in one way.
DURATIONS = st.from_regex(r"\A[0-9]{1,4}([.][0-9]{1,3})?(ns|ms|us|µs|s|m|h|d|w| h)?([0-9]{1,2}[smhd])?\Z")
QUANTITIES = st.from_regex(r"\A[-+]?[0-9]{0,19}[.]?[0-9]{0,10}([KMGTPEkmnuZ]i?|[eE][-+]?[0-9]{1,2})?\Z")
AMOUNTS = st.from_regex(r"\A-?[0-9]{0,13}[.,]?[0-9]{0,7}(e[0-9]|%)?\Z")


@pytest.fixture(scope="module")
def api(cluster: LocalCluster) -> Iterator[AdminApi]:
    cluster.kubectl("create", "namespace", NAMESPACE)
    caller = AdminApi(cluster.layout)
    yield caller
    caller.close()
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def created(api: AdminApi) -> Iterator[Any]:
    """Creates objects for real; they are gone after the test."""
    made: list[Manifest] = []

    def create(name: str) -> str:
        made.append(GOOD[name])
        api.call("POST", _path(GOOD[name]), GOOD[name])
        return f"{_path(GOOD[name])}/{name}"

    yield create
    for manifest in made:
        api.call("DELETE", f"{_path(manifest)}/{manifest['metadata']['name']}")


@pytest.fixture
def wider_schema(api: AdminApi) -> Iterator[None]:
    """TrainingJobs are served with a schema that takes anything, until the test installs its own."""
    crd = crd_of(TrainingJob)
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    properties = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    properties["spec"] = {**anything, "properties": {"queueName": {"type": "string"}}}
    _install(api, crd, takes={**GOOD["minimal-job"], "spec": {"numNodes": 5000}})
    yield
    _install(api, crd_of(TrainingJob), refuses={**GOOD["minimal-job"], "spec": {"numNodes": 5000}})


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_bad_manifest_is_refused_with_its_field_and_what_is_allowed(api: AdminApi, bad: Bad):
    said = _refusal(api, "POST", f"{_path(bad.manifest)}?{DRY_RUN}", bad.manifest)

    assert [words for words in bad.says if words not in said] == [], said


@pytest.mark.parametrize("bad", SAMPLE, ids=str)
def test_kubectl_refuses_what_the_server_refuses(cluster: LocalCluster, bad: Bad):
    answer = _apply(cluster, "--server-side=false", bad.manifest)

    assert answer.returncode != 0
    assert [words for words in bad.says if words not in answer.stderr] == [], answer.stderr


def test_kubectl_apply_fails_for_every_bad_manifest(cluster: LocalCluster):
    by_command: dict[str, list[Bad]] = {"--server-side=false": [], "--server-side=true": []}
    for bad in BAD:
        by_command["--server-side=true" if _has_null(bad.manifest) else "--server-side=false"].append(bad)

    for option, group in by_command.items():
        answer = _apply(cluster, option, *(bad.manifest for bad in group))

        assert answer.stdout == ""
        assert answer.stderr.count("\nError from server") + answer.stderr.startswith("Error from server") == len(group)


@given(texts=st.lists(DURATIONS, min_size=1, max_size=8))
@settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_server_and_models_agree_on_durations(api: AdminApi, texts: list[str]):
    for text in texts:
        _agree(api, {**GOOD["minimal-job"], "spec": {"image": "a:1", "maxRuntime": text}})


@given(text=st.integers() | QUANTITIES)
@settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_server_and_models_agree_on_quantities(api: AdminApi, text: int | str):
    _agree(api, {**GOOD["minimal-job"], "spec": {"image": "a:1", "resources": {"limits": {"memory": text}}}})


@given(text=AMOUNTS)
@settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_server_and_models_agree_on_amounts(api: AdminApi, text: str):
    price = {"perGpuHour": text, "currency": "EUR"}
    _agree(api, {**GOOD["h100"], "spec": {"nodeSelector": {"a": "b"}, "gpuType": "h100", "price": price}})


@pytest.mark.parametrize("name", GOOD)
def test_good_manifest_comes_back_unchanged_but_for_defaults(api: AdminApi, name: str):
    manifest = GOOD[name]

    stored = api.call("POST", f"{_path(manifest)}?{DRY_RUN}", manifest)

    assert _lost(manifest, stored) == []
    assert kind_of(manifest).parse_strict(stored).to_dict() == stored


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("llama-3.1-8b", {"dataClass": "public"}, ["spec.dataClass", "cannot be changed"]),
        ("llama-3.1-8b", {"dataClass": None}, ["spec.dataClass", "cannot be changed or removed"]),
        ("ada-notebook", {"storage": {"size": "49Gi"}}, ["spec.storage.size", "can only grow"]),
        ("ada-notebook", {"storage": {"storageClassName": "slow"}}, ["spec.storage.storageClassName", "changed"]),
        ("ada-notebook", {"storage": {"storageClassName": None}}, ["spec.storage.storageClassName", "removed"]),
        ("llama-1-0", {"zone": "eu-central-1b"}, ["spec", "cannot be changed", "delete the claim"]),
    ],
)
def test_change_that_is_not_allowed_is_refused(
    api: AdminApi, created: Any, name: str, change: Manifest, says: list[str]
):
    path = created(name)

    said = _refusal(api, "PATCH", f"{path}?{DRY_RUN}", {"spec": change}, MERGE_PATCH)

    assert [words for words in says if words not in said] == [], said


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("llama-3.1-8b", {"numNodes": 8, "queueName": "other", "suspend": True}),
        ("minimal-job", {"dataClass": "restricted"}),
        ("ada-notebook", {"storage": {"size": "0.1Ti"}, "running": False}),
        ("minimal-workspace", {"storage": {"size": "1Gi", "storageClassName": "fast"}}),
        ("h100", {"nodeSelector": {"example.com/pool": "new"}}),
    ],
)
def test_change_that_is_allowed_is_taken(api: AdminApi, created: Any, name: str, change: Manifest):
    path = created(name)

    changed = api.call("PATCH", f"{path}?{DRY_RUN}", {"spec": change}, MERGE_PATCH)

    assert _lost({"spec": change}, changed) == []


def test_status_of_another_version_can_be_written(api: AdminApi, created: Any):
    path = created("cpu-only")
    condition = {
        "type": "Dreaming",
        "status": "Perhaps",
        "reason": "R" * 2000,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = {"phase": "Dreaming", "restarts": -1, "conditions": [condition], "usage": {"cost": "1e3"}}

    stored = api.call("PATCH", f"{path}/status?{DRY_RUN}", {"status": status}, MERGE_PATCH)

    assert stored["status"] == status
    assert kind_of(stored).read(stored).status.phase == "Dreaming"


def test_object_stored_under_a_wider_schema_can_still_be_used(api: AdminApi, wider_schema: None):
    wide = {"image": "train:1", "numNodes": 5000, "queueName": "NLP", "podTemplate": {"spec": {"nodeName": "a"}}}
    job = {**GOOD["minimal-job"], "metadata": {"name": "wide"}, "spec": wide}
    path = f"{_path(job)}/wide"
    api.call("POST", _path(job), job)
    _install(api, crd_of(TrainingJob), refuses=job)

    api.call("PATCH", f"{path}/status", {"status": {"phase": "Pending"}}, MERGE_PATCH)
    api.call("PATCH", path, {"metadata": {"finalizers": ["example.com/kept"]}}, MERGE_PATCH)
    stored = api.call("PATCH", path, {"metadata": {"finalizers": []}, "spec": {"suspend": True}}, MERGE_PATCH)

    assert (stored["spec"]["numNodes"], stored["spec"]["suspend"], stored["status"]["phase"]) == (5000, True, "Pending")
    with pytest.raises(ValidationError):
        TrainingJob.read(stored)
    api.call("DELETE", path)


def test_scale_subresource_sets_the_desired_replicas(api: AdminApi, created: Any):
    path = created("to-zero")
    assert api.call("GET", f"{path}/scale")["spec"]["replicas"] == 1

    scaled = api.call("PATCH", f"{path}/scale", {"spec": {"replicas": 3}}, MERGE_PATCH)

    assert scaled["spec"]["replicas"] == 3
    assert api.call("GET", path)["spec"]["replicas"] == {"min": 0, "max": 4, "desired": 3}


def test_jobs_can_be_selected_by_their_queue(api: AdminApi, created: Any):
    created("llama-3.1-8b")
    created("minimal-job")

    found = api.call("GET", f"{_path(GOOD['minimal-job'])}?fieldSelector=spec.queueName%3Dnlp")

    assert [job["metadata"]["name"] for job in found["items"]] == ["llama-3.1-8b"]


def test_explain_reads_like_documentation(cluster: LocalCluster):
    told = " ".join(cluster.kubectl("explain", "tj.spec.topology").split())

    assert "How close together the nodes of the gang are." in told
    assert "The job waits while no domain has room for the whole gang." in told


def test_table_of_jobs_is_useful(cluster: LocalCluster, api: AdminApi, created: Any):
    created("llama-3.1-8b")

    heading, row = cluster.kubectl("get", "tj", "-n", NAMESPACE).splitlines()

    assert heading.split() == ["NAME", "PHASE", "QUEUE", "NODES", "GPUS/NODE", "REASON", "AGE"]
    assert row.split()[:4] == ["llama-3.1-8b", "nlp", "4", "8"]


def test_each_kind_has_a_short_name_and_the_category(cluster: LocalCluster):
    listed = cluster.kubectl("api-resources", "--api-group=stokehold.dev", "--categories=stokehold", "--no-headers")

    assert {line.split()[1] for line in listed.splitlines()} == {"tj", "gpool", "gws", "gq", "gnp", "gnc", "gn"}


def _path(manifest: Manifest) -> str:
    resource = kind_of(manifest).RESOURCE
    place = f"namespaces/{NAMESPACE}/" if resource.namespaced else ""
    return f"/apis/stokehold.dev/v1alpha1/{place}{resource.plural}"


def _refusal(api: AdminApi, method: str, path: str, body: Manifest, content: str = "application/json") -> str:
    with pytest.raises(ApiError) as caught:
        api.call(method, path, body, content)
    assert caught.value.status in (http.client.BAD_REQUEST, http.client.UNPROCESSABLE_ENTITY)
    return str(caught.value)


def _agree(api: AdminApi, manifest: Manifest) -> None:
    """Either both take the manifest or both refuse it."""
    try:
        kind_of(manifest).parse_strict(manifest)
    except ValidationError:
        _refusal(api, "POST", f"{_path(manifest)}?{DRY_RUN}", manifest)
    else:
        api.call("POST", f"{_path(manifest)}?{DRY_RUN}", manifest)


def _install(api: AdminApi, crd: Manifest, takes: Manifest | None = None, refuses: Manifest | None = None) -> None:
    """Replace a CRD and wait until the server goes by it."""
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
    api.call("PATCH", path, {"spec": crd["spec"]}, MERGE_PATCH)
    wanted = takes or refuses or {}
    for _ in range(100):
        try:
            api.call("POST", f"{_path(wanted)}?dryRun=All", {**wanted, "metadata": {"name": "probe"}})
            settled = takes is not None
        except ApiError as error:
            settled = refuses is not None and error.status == http.client.UNPROCESSABLE_ENTITY
        if settled:
            return
        time.sleep(0.1)
    pytest.fail("the server does not go by the new schema")


def _has_null(value: object) -> bool:
    if isinstance(value, dict | list):
        return any(map(_has_null, value.values() if isinstance(value, dict) else value))
    return value is None


def _apply(cluster: LocalCluster, option: str, *manifests: Manifest) -> subprocess.CompletedProcess[str]:
    command = [cluster.bin("kubectl"), "--kubeconfig", cluster.kubeconfig, "apply", "--dry-run=server", option, "-f-"]
    given = "\n---\n".join(json.dumps(manifest, ensure_ascii=False) for manifest in manifests)
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False)  # noqa: S603 - kubectl


def _lost(given: object, got: object, path: str = "") -> list[str]:
    if isinstance(given, dict) and isinstance(got, dict):
        return [lost for key, value in given.items() for lost in _lost(value, got.get(key), f"{path}.{key}")]
    return [] if given == got else [f"{path}: {given!r} became {got!r}"]
