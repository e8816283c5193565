"""Why is it slow or wrong: Runway itself and its way to Kubernetes."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.dashboards.panels import DOCUMENTS, Panel, assemble, graph, or_none_yet, rising, see

CALLS = 'runway_kubernetes_requests_total{kind!="pods/log"}'
FAILED_CALLS = 'runway_kubernetes_requests_total{kind!="pods/log", outcome=~"not_done|ambiguous"}'


def dashboard() -> Dashboard:
    return assemble(
        "runway-control-plane",
        "Runway / Control plane",
        "Runway's own health: latency, its calls to Kubernetes, what it knows and how old that is.",
        [
            ("Answers", [*_answers(), *_releases_and_defects()]),
            ("Kubernetes", _kubernetes()),
            ("What it knows", _knowledge()),
            ("The process", _process()),
        ],
    )


def _quantile(quantile: float, metric: str, *by: str) -> str:
    return (
        f"histogram_quantile({quantile}, sum by ({', '.join(('le', *by))}) (rate({metric}_bucket[$__rate_interval])))"
    )


def _answers() -> list[Panel]:
    slow = see("RunwaySubmissionsSlow")
    return [
        graph(
            "Accepted submissions: p99 by stage",
            f"admit is Runway, create is the API server and its webhooks, total is what the caller waits for. {slow}",
            "s",
            (_quantile(0.99, "runway_submission_seconds", "stage"), "{{stage}}"),
            steps=rising(0.5, 1),
        ),
        graph(
            "Accepted submissions: median by stage",
            f"If the median rises with the p99, everything is slow; if not, some calls are. {slow}",
            "s",
            (_quantile(0.5, "runway_submission_seconds", "stage"), "{{stage}}"),
        ),
        graph(
            "Requests: p99 by route",
            "Until the answer begins, so a log or event stream counts until its first byte. One slow route: its tenant "
            f"or its query; all: CPU, or Kubernetes. {slow}",
            "s",
            (_quantile(0.99, "runway_http_request_seconds", "route"), "{{route}}"),
        ),
        graph(
            "Requests by status",
            "A second. 5xx is Runway's or Kubernetes': find the request_id in the log. 403, 422 and 429 are told to "
            f"the caller. {see('RunwaySubmissionsFailing')}",
            "reqps",
            ("sum by (status) (rate(runway_http_request_seconds_count[$__rate_interval]))", "{{status}}"),
        ),
    ]


def _releases_and_defects() -> list[Panel]:
    return [
        graph(
            "Release of quota after a job's end",
            "From the end as Kubernetes dates it, which is cut to whole seconds, until the quota was free again. Long: "
            f"pods that end slowly, or old news. {see('RunwayWatchStale', 'RunwayGpusHeldByTerminating')}",
            "s",
            (_quantile(0.5, "runway_quota_release_seconds"), "median"),
            (_quantile(0.99, "runway_quota_release_seconds"), "p99"),
        ),
        graph(
            "Defects, last 30 min",
            "Requests that Runway itself failed: answered 500, or broken off. It must be 0; the log has a traceback of "
            f"each. {see('RunwayServerErrors')}",
            "short",
            ("sum(increase(runway_internal_errors_total[30m]))", "defects"),
            steps=((None, "green"), (1, "red")),
        ),
    ]


def _kubernetes() -> list[Panel]:
    errors = see("RunwayKubernetesErrors")
    return [
        graph(
            "Calls by verb and kind",
            f"A second. Lease renewals and watches are always there; many lists mean lost watches. {errors}",
            "reqps",
            (
                "sum by (verb, kind) (rate(runway_kubernetes_requests_total[$__rate_interval]))",
                "{{verb}} {{kind}}",
            ),
        ),
        graph(
            "Calls by outcome",
            "A second. not_done: no connection, or 429; ambiguous: no answer in time, or 5xx; too_busy: all places "
            f"taken; refused: another 4xx, mostly RBAC. {errors}",
            "reqps",
            ("sum by (outcome) (rate(runway_kubernetes_requests_total[$__rate_interval]))", "{{outcome}}"),
        ),
        graph(
            "Share of calls that fail",
            f"Without logs, whose errors are mostly a kubelet's. Above a tenth somebody is paged. {errors}",
            "percentunit",
            (
                or_none_yet(f"sum(rate({FAILED_CALLS}[$__rate_interval]))")
                + f" / sum(rate({CALLS}[$__rate_interval]))",
                "failed",
            ),
            steps=rising(0.05, 0.1),
        ),
        graph(
            "Lost watches, last hour",
            "Contact with Kubernetes that had to be made again. A few after an upgrade of the API server are normal. "
            + see("RunwayWatchStale"),
            "short",
            ("sum by (kind) (increase(runway_watch_losses_total[1h]))", "{{kind}}"),
        ),
    ]


def _knowledge() -> list[Panel]:
    return [
        graph(
            "Age of the last news",
            "Bookmarks come about once a minute, and a watch that is silent for 90 s is given up. "
            + see("RunwayWatchStale", "RunwayExplanationsStale"),
            "s",
            ("max by (kind) (runway_watch_age_seconds)", "{{kind}}"),
            steps=rising(90, 120),
        ),
        graph(
            "Corrections by a resync, last hour",
            f"Records that a list found other than the watch had left them. It must be 0. {see('RunwayResyncDrift')}",
            "short",
            ("sum by (kind) (increase(runway_resync_corrections_total[1h]))", "{{kind}}"),
            steps=((None, "green"), (1, "red")),
        ),
        graph(
            "Objects that cannot be read",
            f"Kubernetes objects with an unreadable part, by kind. It must be 0. {see('RunwayUndecodableObjects')}",
            "short",
            ("max by (kind) (runway_undecodable_objects)", "{{kind}}"),
            steps=((None, "green"), (1, "red")),
        ),
        graph(
            "Oldest job without its record",
            "Seconds since it was over. Rising: the record cannot be written, and is lost if the pod goes first. "
            + see("RunwayEvidenceNotKept"),
            "s",
            ("max(runway_record_lag_seconds)", "lag"),
            steps=rising(60, 300),
        ),
        graph(
            "Records written, by outcome",
            "A minute. conflict, gone and failed are tried again; without end they are a fault. "
            + see("RunwayEvidenceNotKept"),
            "cpm",
            ("sum by (outcome) (rate(runway_records_total[$__rate_interval])) * 60", "{{outcome}}"),
        ),
    ]


def _process() -> list[Panel]:
    return [
        graph(
            "Memory of the process",
            "Resident. About 85 MiB and 14 KiB for each job with its pod; the Deployment's limit is 1 GiB. Raise the "
            f"limit before it is reached, see Memory in [Deploy]({DOCUMENTS}/operations.md#deploy). "
            + see("RunwayNotSynced"),
            "bytes",
            ('max by (instance) (process_resident_memory_bytes{job="runway"})', "{{instance}}"),
            steps=rising(700 * 2**20, 900 * 2**20),
        ),
        graph(
            "CPU of the process",
            "Cores. One process uses at most about one. Near one: answers get slow; see who submits or lists so much. "
            + see("RunwaySubmissionsSlow"),
            "short",
            ('sum by (instance) (rate(process_cpu_seconds_total{job="runway"}[$__rate_interval]))', "{{instance}}"),
            steps=rising(0.7, 0.9),
        ),
        graph(
            "Running for",
            "Since the start of the process. It falls to 0 at a restart: `kubectl -n runway describe pods` says why. "
            + see("RunwayNoWriter"),
            "s",
            ('time() - max by (instance) (process_start_time_seconds{job="runway"})', "{{instance}}"),
        ),
        graph(
            "Open files",
            "Connections and streams for the most part. Rising without an end is a leak: keep the log, then restart. "
            + see("RunwayNoWriter"),
            "short",
            ('max by (instance) (process_open_fds{job="runway"})', "{{instance}}"),
        ),
    ]
