"""The undecodable objects of a watch are bounded, and divided between namespaces."""

from __future__ import annotations

from runway.kube.objects import Metadata, Pod
from runway.state.cluster_state import MAX_UNDECODABLE, WatchStatus

FIELDS = ("status.startTime",)


def undecodable(namespace: str, name: str) -> Pod:
    return Pod(Metadata(namespace=namespace, name=name, unreadable=FIELDS))


def test_undecodable_objects_of_one_tenant_displace_none_of_another() -> None:
    watch = WatchStatus("pods", {"runway-vision", "runway-speech"}, 0.0)
    watch.replace_undecodable([undecodable("runway-vision", str(number)) for number in range(MAX_UNDECODABLE + 1)])
    watch.update_undecodable(undecodable("runway-speech", "a"), deleted=False)
    assert len(watch.undecodable) == MAX_UNDECODABLE
    assert ("runway-speech", "a") in watch.undecodable
    watch.update_undecodable(undecodable("runway-vision", "new"), deleted=False)
    assert ("runway-speech", "a") in watch.undecodable
    watch.update_undecodable(undecodable("runway-speech", "a"), deleted=True)
    assert len(watch.undecodable) == MAX_UNDECODABLE - 1
