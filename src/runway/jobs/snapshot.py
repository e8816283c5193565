"""The snapshot of a job, from which Runway derives its view and its diagnosis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from runway.jobs.gpu_idle import IdleGpus
from runway.kube.objects import Event, Job, Node, Pod


@dataclass(frozen=True, slots=True)
class FreeCapacity:
    """The maximum free milli-CPU, bytes and GPUs of one ready node that the pod's node selector matches."""

    nodes: int
    cpu: int
    memory: int
    gpu: int
    gpu_in_all: int
    without_gpus: int = 0
    """Nodes of a pool with GPUs that have registered none, such as after a restart of their device plugin."""


@dataclass(frozen=True, slots=True)
class PoolSize:
    """The number of nodes of a job's pool, and the maximum that the policy gives; None without one."""

    name: str
    nodes: int
    max_nodes: int | None

    @property
    def is_at_maximum(self) -> bool:
        return self.max_nodes is not None and self.nodes >= self.max_nodes


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """A Job with its pods, events and nodes.

    `pods` are the attempts of this Job, oldest first; `deleted_pods` names those that are deleted. `events` are
    warnings and events of autoscalers, oldest first; Kubernetes deletes them after an hour. `free_capacity` and `pool`
    are known if the last pod has no node. `idle_gpus` are those that Prometheus reports for the last pod.
    """

    tenant: str
    job: Job
    pods: tuple[Pod, ...] = ()
    deleted_pods: frozenset[str] = frozenset()
    events: tuple[Event, ...] = ()
    nodes: Mapping[str, Node] = field(default_factory=dict)
    free_capacity: FreeCapacity | None = None
    pool: PoolSize | None = None
    idle_gpus: IdleGpus | None = None
    deletions_seen: Mapping[str, datetime] = field(default_factory=dict)
    """When Runway saw the deletion of pods, by name, in whole seconds."""

    def events_on(self, item: Job | Pod) -> list[Event]:
        """Return the events on this Job or pod, oldest first."""
        return [event for event in self.events if event.involved_object.uid == item.metadata.uid]

    def has_ended(self, pod: Pod) -> bool:
        """Return whether no container of the pod runs or will run."""
        return pod.is_terminal or pod.metadata.name in self.deleted_pods

    def node_of(self, pod: Pod) -> Node | None:
        """Return the node of the pod; None if it has none, or the node is unknown."""
        return self.nodes.get(pod.spec.node_name or "")
