"""Decode what the API server sends, one object at a time, and make each object harmless.

1. Strict: msgspec decodes the object into its type of `runway.kube.objects`.
2. Where that fails, part by part: a part that cannot be read is left out.
3. Texts, times, durations and quantities are brought within the bounds below, so no other module has to.

`metadata.unreadable` names the parts that were left out. Such an object is called undecodable: it counts for quota by
what could be read, and a quantity that cannot be read counts as more than any quota.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache, lru_cache
from operator import is_not
from types import UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec.structs import replace

from runway.jobs.annotations import MAX_SECONDS
from runway.jobs.identity import (
    ANNOTATION_CANCELLED_AT,
    ANNOTATION_COST,
    ANNOTATION_RECORD,
    ANNOTATION_SPEC,
    ANNOTATION_SPEC_HASH,
    LABEL_MANAGED_BY,
    PREFIX,
)
from runway.jobs.manifest import GPU_RESOURCE
from runway.kube.api_types import ListMeta, Object, ObjectList, WatchEvent
from runway.kube.objects import (
    CONTAINER,
    FIRST_YEAR,
    LABEL_CONTROLLER,
    LABEL_JOB_NAME,
    LAST_YEAR,
    Condition,
    Container,
    ContainerStatus,
    Event,
    Job,
    Lease,
    Metadata,
    Node,
    Pod,
    PodSpec,
    ResourceRequirements,
    Taint,
    is_possible_year,
)
from runway.quantity import MAX_LENGTH, ceil_units
from runway.text import one_line, visible

MAX_WORD: Final = 256
"""Characters of a type, status, reason or name: Kubernetes' own are far shorter."""
MAX_MESSAGE: Final = 4096
"""Characters of a message; the middle of a longer one is left out. A kubelet's log tail has at most 4096 bytes.

https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
"""
MAX_PARTS: Final = 32
"""Conditions and container statuses of one object, and tolerations and taints."""
MAX_ANNOTATIONS: Final = {
    ANNOTATION_CANCELLED_AT: 64,
    ANNOTATION_COST: 4096,
    ANNOTATION_RECORD: 32 * 1024,
    ANNOTATION_SPEC: 256 * 1024,
    ANNOTATION_SPEC_HASH: 64,
}
"""Characters of the annotations of a Job that are read, some twice what Runway writes. A longer one is cut: it is still
there, and cannot be read."""
MAX_INT32: Final = 2**31 - 1
"""Of what Kubernetes holds as a 32-bit number."""
MAX_SALVAGED: Final = 256
"""Elements of a list that are read one by one where the list as a whole is unreadable: each takes some 30 us."""
MAX_DEPTH: Final = 100
"""Nested objects and lists. What Runway reads is at most 12 deep. JSON in Go may have 10,000 levels, and free-form
parts such as `managedFields` can use them; msgspec takes as many as Python has frames left, about 900."""
MAX_FAULTS: Final = 8
"""Unreadable parts of one object that are named."""
MORE_THAN_ANY_QUOTA: Final = "1E"
"""What an unreadable quantity counts as: no job of its tenant is admitted until the object is repaired."""

UNREADABLE_CONTAINER: Final = "unreadable"
"""The name of the container that stands in for requests that cannot be read."""

READ_CONDITIONS: Final = frozenset(
    {
        "Complete", "DisruptionTarget", "Failed", "FailureTarget", "PodReadyToStartContainers", "PodScheduled", "Ready",
        "SuccessCriteriaMet", "Suspended",
    }
)  # fmt: skip
"""The types of conditions that Runway reads: none of another type takes their place."""

_WITHOUT_REQUESTS: Final = frozenset(
    {"activeDeadlineSeconds", "completions", "nodeName", "nodeSelector", "terminationGracePeriodSeconds", "tolerations"}
)
_RESOURCES: Final = ("cpu", "memory", GPU_RESOURCE)
_LABELS: Final = frozenset({LABEL_CONTROLLER, LABEL_JOB_NAME, LABEL_MANAGED_BY})
_CUT: Final = " ... "
_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[][{}]', re.DOTALL)
"""A string of JSON, or a bracket outside of one."""
_UNREADABLE: Final = msgspec.UNSET
_Part = TypeVar("_Part", bound=msgspec.Struct)
_Any = TypeVar("_Any", Job, Pod, Event, Node, Lease)
_Decoded = TypeVar("_Decoded")


class _RawList(msgspec.Struct, frozen=True):
    metadata: ListMeta
    items: tuple[msgspec.Raw, ...] | None = None


class _RawWatchEvent(msgspec.Struct, frozen=True):
    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: msgspec.Raw


_listing = msgspec.json.Decoder(_RawList)
_change = msgspec.json.Decoder(_RawWatchEvent)
_anything = msgspec.json.Decoder()


def decode_list(body: bytes, type_: type[Object]) -> ObjectList[Object]:
    """One page of a list. Raises msgspec.DecodeError where it is no list; no object in it does."""
    listing = _decoded(_listing, body)
    if not is_version(listing.metadata.resource_version):
        raise msgspec.DecodeError("the list has no resource version")
    items = tuple(decode_object(bytes(raw), type_) for raw in listing.items or ())
    return ObjectList(metadata=listing.metadata, items=items)


def decode_watch_event(line: bytes, type_: type[Object]) -> WatchEvent[Object]:
    """One event of a watch. Raises msgspec.DecodeError where it is none; the object in it does not."""
    change = _decoded(_change, line)
    return WatchEvent(type=change.type, object=decode_object(bytes(change.object), type_))


def decode_object(raw: bytes, type_: type[Object]) -> Object:
    """One object, harmless. Where not even its metadata can be read, one without a name."""
    item, faults = _salvaged(raw, type_)
    return _sanitize(item, faults)


def decode_lease(raw: bytes) -> Lease:
    """The Lease. Its labels and annotations stay as they are, since they are written back."""
    return _salvaged(raw, Lease)[0]


def is_version(text: str) -> bool:
    """Whether this is a resource version, which Runway compares as a number."""
    return text.isascii() and text.isdecimal() and len(text) <= 20


def _decoded(decoder: msgspec.json.Decoder[_Decoded], raw: bytes) -> _Decoded:
    """Decode JSON of any depth. Raises msgspec.DecodeError."""
    try:
        return decoder.decode(raw)
    except RecursionError:
        return decoder.decode(shallow(raw))


def shallow(raw: bytes) -> bytes:
    """The same JSON with null in place of what is nested deeper than `MAX_DEPTH`: half a second for 16 MiB."""
    pieces: list[bytes] = []
    kept_from, depth = 0, 0
    for token in _TOKEN.finditer(raw):
        bracket = token[0]
        if bracket in (b"{", b"["):
            depth += 1
            if depth == MAX_DEPTH + 1:
                pieces += (raw[kept_from : token.start()], b"null")
        elif bracket in (b"}", b"]"):
            if depth == MAX_DEPTH + 1:
                kept_from = token.end()
            depth -= 1
    # Where brackets are left open, it is no JSON: the decoder says so of what came before.
    return b"".join(pieces) if depth > MAX_DEPTH else b"".join((*pieces, raw[kept_from:]))


def _salvaged(raw: bytes, type_: type[_Any]) -> tuple[_Any, list[str]]:
    """The object as far as it can be read, and the paths of what cannot."""
    try:
        return _decoded(_decoder(type_), raw), []
    except (msgspec.DecodeError, RecursionError):
        pass
    faults: list[str] = []
    try:
        value = _decoded(_anything, raw)
    except (msgspec.DecodeError, RecursionError):
        value = None
    item = _salvage(value, type_, "", faults)
    return (type_(metadata=Metadata()), ["object"]) if item is _UNREADABLE else (item, faults)


@cache
def _decoder(type_: type[_Any]) -> msgspec.json.Decoder[_Any]:
    return msgspec.json.Decoder(type_)


def _salvage(value: Any, type_: Any, path: str, faults: list[str]) -> Any:
    """A value as this type, its unreadable parts left out; `_UNREADABLE` where nothing of it can be read."""
    try:
        return msgspec.convert(value, type_)
    except (msgspec.ValidationError, RecursionError):
        pass
    inner = _without_none(type_)
    found: Any = _UNREADABLE
    if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and isinstance(value, dict):
        found = _salvage_struct(value, inner, path, faults)
    elif get_origin(inner) is tuple and isinstance(value, list):
        if len(value) > MAX_SALVAGED:
            faults.append(path)
        known = enumerate(value[:MAX_SALVAGED])
        parts = [_salvage(part, get_args(inner)[0], f"{path}[{at}]", faults) for at, part in known]
        found = tuple(part for part in parts if part is not _UNREADABLE)
    elif get_origin(inner) is dict and isinstance(value, dict):
        found = {name: part for name, part in value.items() if isinstance(name, str) and isinstance(part, str)}
        faults.append(path)
    if found is _UNREADABLE:
        faults.append(path or "object")
    return found


def _salvage_struct(value: dict[str, Any], type_: type[_Part], path: str, faults: list[str]) -> Any:
    """Each field of its own. A required one that cannot be read makes the whole unreadable; null is an absent one."""
    known, hints = dict[str, Any](), _hints(type_)
    for field in msgspec.structs.fields(type_):
        sent = value.get(field.encode_name)
        if sent is None:
            continue
        found = _salvage(sent, hints[field.name], f"{path}.{field.encode_name}".lstrip("."), faults)
        if found is not _UNREADABLE:
            known[field.name] = found
    try:
        return type_(**known)
    except TypeError:
        return _UNREADABLE


@cache
def _hints(type_: type[msgspec.Struct]) -> Mapping[str, Any]:
    return get_type_hints(type_, include_extras=True)


def _without_none(type_: Any) -> Any:
    """`X` of `X | None`."""
    if get_origin(type_) in (Union, UnionType):
        return next((part for part in get_args(type_) if part is not type(None)), type_)
    return type_


def _sanitize(item: Object, faults: list[str]) -> Object:
    """The object within bounds. What cannot be brought within them joins `faults`."""
    requests_lost = any(map(_hides_requests, faults))
    match item:
        case Job():
            clean: Any = _job(item, faults)
        case Pod():
            clean = _pod(item, faults)
        case Event():
            clean = _event(item, faults)
        case Node():
            clean = _node(item, faults)
    if requests_lost and isinstance(clean, Job | Pod):
        clean = _with_unlimited_requests(clean)
    metadata = _metadata(clean.metadata, faults, is_job=isinstance(item, Job), labels_too=not isinstance(item, Node))
    if faults:
        named = [fault[:MAX_WORD] for fault in dict.fromkeys(faults)][:MAX_FAULTS]
        metadata = replace(metadata, unreadable=tuple(named))
    return clean if metadata is clean.metadata else replace(clean, metadata=metadata)  # type: ignore[no-any-return]


def _hides_requests(fault: str) -> bool:
    """Whether with this part the amounts may be lost that a Job or pod holds."""
    return fault.startswith("spec") and fault.rpartition(".")[2].partition("[")[0] not in _WITHOUT_REQUESTS


def _with_unlimited_requests(item: Job | Pod) -> Job | Pod:
    """The Job or pod with one container more, which holds more than any quota: what it really holds is not known."""
    held = Container(UNREADABLE_CONTAINER, ResourceRequirements(dict.fromkeys(_RESOURCES, MORE_THAN_ANY_QUOTA)))
    if isinstance(item, Pod):
        return replace(item, spec=replace(item.spec, containers=(*(item.spec.containers or ()), held)))
    spec = item.spec.template.spec
    template = replace(item.spec.template, spec=replace(spec, containers=(*(spec.containers or ()), held)))
    return replace(item, spec=replace(item.spec, template=template, parallelism=1, suspend=False))


def _metadata(metadata: Metadata, faults: list[str], *, is_job: bool, labels_too: bool) -> Metadata:
    """With the annotations of a Job and the labels of a Job or pod that are read; a node has all of its labels."""
    if not is_version(metadata.resource_version):
        faults.append("metadata.resourceVersion")
        return Metadata(unreadable=("metadata.resourceVersion",))
    changes: dict[str, Any] = {}
    _check_time(metadata, "creation_timestamp", "metadata", changes, faults)
    if metadata.deletion_timestamp is not None:
        _check_time(metadata, "deletion_timestamp", "metadata", changes, faults)
    grace = metadata.deletion_grace_period_seconds
    if grace is not None and grace != (bounded := _seconds(grace)):
        changes["deletion_grace_period_seconds"] = bounded
    if metadata.annotations:
        known = MAX_ANNOTATIONS.items() if is_job else ()
        changes["annotations"] = {
            name: metadata.annotations[name][:limit] for name, limit in known if name in metadata.annotations
        }
    if labels_too and metadata.labels:
        changes["labels"] = {
            name: _word(text) for name, text in metadata.labels.items() if name in _LABELS or name.startswith(PREFIX)
        }
    return replace(metadata, **changes) if changes else metadata


def _job(job: Job, faults: list[str]) -> Job:
    changes: dict[str, Any] = {}
    status: dict[str, Any] = {}
    _check_time(job.status, "start_time", "status", status, faults)
    _check_time(job.status, "completion_time", "status", status, faults)
    conditions = _conditions(job.status.conditions, faults)
    if conditions is not job.status.conditions:
        status["conditions"] = conditions
    if status:
        changes["status"] = replace(job.status, **status)
    template = _pod_spec(job.spec.template.spec, "spec.template.spec", faults)
    spec: dict[str, Any] = {}
    if template is not job.spec.template.spec:
        spec["template"] = replace(job.spec.template, spec=template)
    deadline = job.spec.active_deadline_seconds
    if deadline is not None and deadline != (bounded := _seconds(deadline)):
        spec["active_deadline_seconds"] = bounded
    _check_int32(job.spec, ("parallelism", "completions"), spec)
    if spec:
        changes["spec"] = replace(job.spec, **spec)
    return replace(job, **changes) if changes else job


def _pod(pod: Pod, faults: list[str]) -> Pod:
    status, changes = pod.status, dict[str, Any]()
    _check_time(status, "start_time", "status", changes, faults)
    _check_words(status, ("phase", "reason"), changes)
    if status.message is not None and status.message != (message := _message(status.message)):
        changes["message"] = message
    conditions = _conditions(status.conditions, faults)
    if conditions is not status.conditions:
        changes["conditions"] = conditions
    known = status.container_statuses
    if len(known) > MAX_PARTS:
        known = tuple(sorted(known, key=lambda one: one.name != CONTAINER)[:MAX_PARTS])
    statuses = tuple(_container_status(one, f"status.containerStatuses[{at}]", faults) for at, one in enumerate(known))
    if len(statuses) != len(status.container_statuses) or any(map(is_not, statuses, known)):
        changes["container_statuses"] = statuses
    if changes:
        pod = replace(pod, status=replace(status, **changes))
    spec = _pod_spec(pod.spec, "spec", faults)
    return pod if spec is pod.spec else replace(pod, spec=spec)


def _pod_spec(spec: PodSpec, path: str, faults: list[str]) -> PodSpec:
    changes: dict[str, Any] = {}
    for name, containers in (("containers", spec.containers), ("init_containers", spec.init_containers)):
        if containers and (clean := _containers(containers, f"{path}.{name}", faults)) is not containers:
            changes[name] = clean
    if not _is_readable(spec.resources.requests):
        of_pod = _container(Container("pod", spec.resources), path, faults)
        changes["resources"] = of_pod.resources
    grace = spec.termination_grace_period_seconds
    if grace is not None and grace != (bounded := _seconds(grace)):
        changes["termination_grace_period_seconds"] = bounded
    if len(spec.tolerations) > MAX_PARTS:
        changes["tolerations"] = spec.tolerations[:MAX_PARTS]
    return replace(spec, **changes) if changes else spec


def _containers(containers: tuple[Container, ...], path: str, faults: list[str]) -> tuple[Container, ...]:
    """With the requests alone that are read, each of which can be."""
    if all(_is_readable(container.resources.requests) for container in containers):
        return containers
    return tuple(_container(one, f"{path}[{at}]", faults) for at, one in enumerate(containers))


@lru_cache(maxsize=1024)
def _is_quantity(text: str) -> bool:
    try:
        ceil_units(text)
    except ValueError:
        return False
    return True


def _is_readable(requests: Mapping[str, str]) -> bool:
    return all(name in _RESOURCES and len(text) <= MAX_LENGTH and _is_quantity(text) for name, text in requests.items())


def _container(container: Container, path: str, faults: list[str]) -> Container:
    requests, known = container.resources.requests, dict[str, str]()
    for name in _RESOURCES:
        quantity = requests.get(name)
        if quantity is None:
            continue
        known[name] = quantity
        if len(quantity) > MAX_LENGTH or not _is_quantity(quantity):
            known[name] = MORE_THAN_ANY_QUOTA
            faults.append(f"{path}.resources.requests.{name}")
    return replace(container, resources=replace(container.resources, requests=known))


def _container_status(status: ContainerStatus, path: str, faults: list[str]) -> ContainerStatus:
    state, changes = status.state, dict[str, Any]()
    if (waiting := state.waiting) is not None:
        words: dict[str, Any] = {}
        _check_words(waiting, ("reason",), words)
        if waiting.message is not None and waiting.message != (message := _message(waiting.message)):
            words["message"] = message
        if words:
            changes["waiting"] = replace(waiting, **words)
    if (running := state.running) is not None:
        times: dict[str, Any] = {}
        _check_time(running, "started_at", f"{path}.state.running", times, faults)
        if times:
            changes["running"] = replace(running, **times)
    if (ended := state.terminated) is not None:
        found: dict[str, Any] = {}
        _check_words(ended, ("reason",), found)
        for name in ("started_at", "finished_at"):
            _check_time(ended, name, f"{path}.state.terminated", found, faults)
        # The end of a log stays as it was written: it is escaped and redacted where an excerpt is made of it.
        if ended.message is not None and len(ended.message) > MAX_MESSAGE:
            found["message"] = ended.message[-MAX_MESSAGE:]
        _check_int32(ended, ("exit_code", "signal"), found)
        if found:
            changes["terminated"] = replace(ended, **found)
    return replace(status, state=replace(state, **changes)) if changes else status


def _event(event: Event, faults: list[str]) -> Event:
    changes: dict[str, Any] = {}
    _check_words(event, ("reason", "type"), changes)
    if event.message is not None and event.message != (message := _message(event.message)):
        changes["message"] = message
    for name in ("first_timestamp", "last_timestamp", "event_time"):
        _check_time(event, name, "", changes, faults)
    if event.series is not None:
        series: dict[str, Any] = {}
        _check_time(event.series, "last_observed_time", "series", series, faults)
        if series:
            changes["series"] = replace(event.series, **series)
    about: dict[str, Any] = {}
    _check_words(event.involved_object, ("kind", "namespace", "name", "uid"), about)
    if about:
        changes["involved_object"] = replace(event.involved_object, **about)
    return replace(event, **changes) if changes else event


def _node(node: Node, faults: list[str]) -> Node:
    conditions, status = _conditions(node.status.conditions, faults), dict[str, Any]()
    if conditions is not node.status.conditions:
        status["conditions"] = conditions
    allocatable = {name: node.status.allocatable[name] for name in _RESOURCES if name in node.status.allocatable}
    for name, quantity in tuple(allocatable.items()):
        if len(quantity) > MAX_LENGTH or not _is_quantity(quantity):
            del allocatable[name]
            faults.append(f"status.allocatable.{name}")
    if allocatable != node.status.allocatable:
        status["allocatable"] = allocatable
    if status:
        node = replace(node, status=replace(node.status, **status))
    taints: tuple[Taint, ...] = node.spec.taints
    return node if len(taints) <= MAX_PARTS else replace(node, spec=replace(node.spec, taints=taints[:MAX_PARTS]))


def _conditions(conditions: tuple[Condition, ...], faults: list[str]) -> tuple[Condition, ...]:
    """At most `MAX_PARTS`: where there are more, one of each type, and those that Runway reads first."""
    if len(conditions) <= MAX_PARTS and all(map(_is_plain, conditions)):
        return conditions
    if len(conditions) > MAX_PARTS:
        # Of several of a type the first that is True, as for `Job.condition`.
        in_order = sorted(conditions, key=lambda condition: condition.status != "True")
        first = {condition.type: condition for condition in reversed(in_order)}
        known = sorted(first.values(), key=lambda condition: condition.type not in READ_CONDITIONS)
        conditions = tuple(known[:MAX_PARTS])
    return tuple(_condition(one, f"status.conditions[{at}]", faults) for at, one in enumerate(conditions))


def _is_plain(condition: Condition) -> bool:
    """Whether there is nothing to bound or escape in a condition, as in nearly all of them."""
    time, message = condition.last_transition_time, condition.message
    words = condition.type + condition.status + (condition.reason or "")
    return (
        len(words) <= MAX_WORD
        and words.isprintable()
        and (message is None or (len(message) <= MAX_MESSAGE and message.isprintable()))
        and (time is None or FIRST_YEAR <= time.year <= LAST_YEAR)
    )


def _condition(condition: Condition, path: str, faults: list[str]) -> Condition:
    changes: dict[str, Any] = {}
    _check_words(condition, ("type", "status", "reason"), changes)
    if condition.message is not None and condition.message != (message := _message(condition.message)):
        changes["message"] = message
    _check_time(condition, "last_transition_time", path, changes, faults)
    return replace(condition, **changes) if changes else condition


def _check_time(part: msgspec.Struct, name: str, path: str, changes: dict[str, Any], faults: list[str]) -> None:
    time: datetime | None = getattr(part, name)
    if time is not None and not is_possible_year(time.year):
        changes[name] = None
        faults.append(f"{path}.{name}".lstrip("."))


def _check_int32(part: msgspec.Struct, names: tuple[str, ...], changes: dict[str, Any]) -> None:
    for name in names:
        number: int | None = getattr(part, name)
        if number is not None and not -MAX_INT32 <= number <= MAX_INT32:
            changes[name] = max(-MAX_INT32, min(number, MAX_INT32))


def _check_words(part: msgspec.Struct, names: tuple[str, ...], changes: dict[str, Any]) -> None:
    for name in names:
        text: str | None = getattr(part, name)
        if text is not None and (word := _word(text)) is not text:
            changes[name] = word


def _word(text: str) -> str:
    return text if len(text) <= MAX_WORD and text.isprintable() else one_line(text, MAX_WORD)


def _message(text: str) -> str:
    """A message with its lines, escaped; both ends of a long one, which say where and why."""
    if len(text) > MAX_MESSAGE:
        text = text[: MAX_MESSAGE // 2] + _CUT + text[-MAX_MESSAGE // 2 :]
    if not text.isprintable():
        text = visible(text, keep="\n\t")
        if len(text) > MAX_MESSAGE:
            text = text[: MAX_MESSAGE // 2] + _CUT + text[-MAX_MESSAGE // 2 :]
    return text


def _seconds(seconds: int) -> int:
    """Kubernetes takes 64-bit durations; ten years are as good as never."""
    return min(max(seconds, 0), MAX_SECONDS)
