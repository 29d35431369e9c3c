"""Who uses GPUs without having been given them: an Event on the node's GPUNode, once for each of them. Pure."""

from collections.abc import Iterator

from stokehold.api.v1alpha1.gpu_node import ForeignUser, Gpu, MigDevice
from stokehold.model.actions import Note, TellOfNode
from stokehold.model.reasons import Event
from stokehold.model.snapshot import Sighting, Snapshot


def tell_of_strangers(snapshot: Snapshot) -> Iterator[TellOfNode]:
    """What has not been told of each node. A pod counts once for each GPU, whatever it calls its processes."""
    for sighting in snapshot.sightings.values():
        notes = {note.key: note for note in _notes(sighting)}
        fresh = tuple(note for key, note in notes.items() if key not in sighting.told)
        if fresh:
            yield TellOfNode(sighting, fresh, frozenset(notes))


def _notes(sighting: Sighting) -> Iterator[Note]:
    for gpu in sighting.status.gpus:
        devices: tuple[Gpu | MigDevice, ...] = (gpu, *gpu.mig_devices)
        for device in devices:
            for user in device.foreign_users:
                yield _note(device.uuid, user)


def _note(uuid: str, user: ForeignUser) -> Note:
    pod = "/".join(part for part in (user.namespace, user.pod or user.pod_uid) if part)
    who = f"pod {pod}" if pod else f"process {user.command or '(unnamed)'} of no pod"
    message = f"{who} uses {uuid}, which it has not been given: work that is placed there has to share it"
    return Note(Event.FOREIGN_GPU_USER, message, f"foreign {uuid} {user.pod_uid or pod}", warning=True)
