"""Everything that is known of one job at one moment: what its view and its diagnosis are worked out from. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from runway.kube.objects import Event, Job, Node, Pod


@dataclass(frozen=True, slots=True)
class FreeCapacity:
    """What is free on the nodes that a pod's node selector allows: the most on any one of them.

    CPU in milli-CPU, memory in bytes. A node that is not ready or takes no new pods is not among them.
    """

    nodes: int
    cpu: int
    memory: int
    gpu: int
    gpu_in_all: int


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """A Job of Runway's and what surrounds it.

    `pods` are the attempts of this very Job, oldest first, those that no longer exist included: `gone` names them.
    `events` are the warnings on the Job and its pods, oldest first; they fade after an hour. `nodes` are those that the
    pods were bound to, by name. `room` is known where the last pod has no node.
    """

    tenant: str
    job: Job
    pods: tuple[Pod, ...] = ()
    deleted_pods: frozenset[str] = frozenset()
    events: tuple[Event, ...] = ()
    nodes: Mapping[str, Node] = field(default_factory=dict)
    room: FreeCapacity | None = None

    def events_on(self, item: Job | Pod) -> list[Event]:
        """The events on this very Job or pod, oldest first."""
        return [event for event in self.events if event.involved_object.uid == item.metadata.uid]

    def has_ended(self, pod: Pod) -> bool:
        """Whether no container of the pod runs or will run, as far as is known."""
        return pod.is_terminal or pod.metadata.name in self.deleted_pods

    def node_of(self, pod: Pod) -> Node | None:
        """The node that the pod was bound to; None where there is none, or it is not known."""
        return self.nodes.get(pod.spec.node_name or "")
