"""Rows about Runway: health, requests, Kubernetes, watches and records, process."""

from __future__ import annotations

from deploy.dashboards.panels import (
    DOCUMENTS,
    MUST_BE_ONE,
    OWN_REFUSALS,
    Panel,
    Row,
    graph,
    number,
    or_none_yet,
    rising,
    see,
)

CALLS = 'runway_kubernetes_requests_total{kind!="pods/log"}'
FAILED_CALLS = 'runway_kubernetes_requests_total{kind!="pods/log", outcome=~"not_done|ambiguous"}'


def rows() -> list[Row]:
    """Return the rows in the order in which Grafana shows them."""
    return [
        ("Requests", _requests()),
        ("Kubernetes", _kubernetes()),
        ("Watches and records", _watches()),
        ("Process", _process()),
    ]


def health() -> list[Panel]:
    """Return the numbers that an operator looks at first."""
    return [
        number(
            "Leader can write",
            f"No: submissions and cancels get 503. Running jobs continue. {see('RunwayNoWriter')}",
            "short",
            ("max(runway_is_writer) or vector(0)", "writer"),
            MUST_BE_ONE,
            words=True,
        ),
        number(
            "Jobs and pods listed",
            f"No: the first lists are not complete, and this process admits no job. {see('RunwayNotSynced')}",
            "short",
            ("min(runway_synced) or vector(0)", "synced"),
            MUST_BE_ONE,
            words=True,
        ),
        number(
            "Age of job and pod watches",
            "Bookmarks arrive about once a minute. After two minutes states are old and Runway releases no quota. "
            + see("RunwayWatchStale"),
            "s",
            ('max(runway_watch_age_seconds{kind=~"jobs|pods"})', "age"),
            rising(90, 120),
        ),
        number(
            "Error budget burn rate, 1 h",
            "Share of submissions that got 5xx without a fault of a tenant, over the 0.1 % that the objective allows. "
            + see("RunwaySubmissionsFailing"),
            "short",
            (_burn_rate("1h"), "burn rate"),
            rising(6, 14.4),
        ),
        number(
            "Longest wait",
            "Age of the oldest pending job. A GPU node takes about ten minutes to start. "
            + see("RunwayJobsPendingLong"),
            "s",
            ("max(runway_oldest_pending_seconds)", "wait"),
            rising(900, 1800),
        ),
        number(
            "Submissions are open",
            "No: an operator stopped all submissions. `/readyz` and each 503 give the reason. "
            + see("RunwaySubmissionsStopped"),
            "short",
            ("1 - max(runway_submissions_stopped)", "open"),
            MUST_BE_ONE,
            words=True,
        ),
    ]


def _burn_rate(window: str) -> str:
    failed = or_none_yet(f'sum(rate(runway_submissions_total{{outcome=~"{OWN_REFUSALS}"}}[{window}]))')
    return or_none_yet(f"{failed} / (sum(rate(runway_submissions_total[{window}])) > 0) / 0.001")


def _quantile(quantile: float, metric: str, *by: str) -> str:
    return (
        f"histogram_quantile({quantile}, sum by ({', '.join(('le', *by))}) (rate({metric}_bucket[$__rate_interval])))"
    )


def _requests() -> list[Panel]:
    slow = see("RunwaySubmissionsSlow")
    return [
        graph(
            "Accepted submissions: p99 by stage",
            "admit: Runway. create: the API server and its webhooks. total: the time that the caller waits. " + slow,
            "s",
            (_quantile(0.99, "runway_submission_seconds", "stage"), "{{stage}}"),
            steps=rising(0.5, 1),
        ),
        graph(
            "Accepted submissions: median by stage",
            f"If it rises with the p99, every submission is slow; otherwise only some are. {slow}",
            "s",
            (_quantile(0.5, "runway_submission_seconds", "stage"), "{{stage}}"),
        ),
        graph(
            "Requests: p99 by route",
            "Until the response begins; a stream counts until its first byte. One slow route: its tenant or its query. "
            f"All routes: CPU or Kubernetes. {slow}",
            "s",
            (_quantile(0.99, "runway_http_request_seconds", "route"), "{{route}}"),
        ),
        graph(
            "Requests by status",
            "Per second. 5xx: Runway or Kubernetes failed; find the request_id in the log. 4xx: the response gives the "
            f"caller the reason. {see('RunwaySubmissionsFailing')}",
            "reqps",
            ("sum by (status) (rate(runway_http_request_seconds_count[$__rate_interval]))", "{{status}}"),
        ),
        graph(
            "Error budget burn rate by window",
            "1 spends the budget of 0.1 % in 30 days. Above 1 over three days and six hours a ticket, above 6 over six "
            f"hours or 14.4 over one a page. {see('RunwayErrorBudgetBurning', 'RunwaySubmissionsFailing')}",
            "short",
            *((_burn_rate(window), window) for window in ("5m", "1h", "6h", "3d")),
            steps=((None, "green"), (1, "orange"), (14.4, "red")),
        ),
        graph(
            "Quota release after the end of a job",
            "From the end that Kubernetes reports, in whole seconds, to the release of the quota. High: pods terminate "
            f"slowly, or watches are old. {see('RunwayWatchStale', 'RunwayGpusHeldByTerminating')}",
            "s",
            (_quantile(0.5, "runway_quota_release_seconds"), "median"),
            (_quantile(0.99, "runway_quota_release_seconds"), "p99"),
        ),
        graph(
            "Internal errors, last 30 min",
            "Requests that a defect of Runway failed: a 500, or an interrupted response. Must be 0. The log has each "
            f"traceback. {see('RunwayServerErrors')}",
            "short",
            ("sum(increase(runway_internal_errors_total[30m]))", "errors"),
            steps=((None, "green"), (1, "red")),
        ),
    ]


def _kubernetes() -> list[Panel]:
    errors = see("RunwayKubernetesErrors")
    return [
        graph(
            "Calls by verb and kind",
            f"Per second. Lease renewals and watches are constant. Many lists: watches fail. {errors}",
            "reqps",
            (
                "sum by (verb, kind) (rate(runway_kubernetes_requests_total[$__rate_interval]))",
                "{{verb}} {{kind}}",
            ),
        ),
        graph(
            "Calls by outcome",
            "Per second. not_done: no connection, or 429. ambiguous: timeout, or 5xx. too_busy: no free connection. "
            f"refused: another 4xx, mostly RBAC. {errors}",
            "reqps",
            ("sum by (outcome) (rate(runway_kubernetes_requests_total[$__rate_interval]))", "{{outcome}}"),
        ),
        graph(
            "Share of calls that fail",
            "Without log requests, whose errors mostly come from a kubelet. Above 10 % the alert pages the operator. "
            + errors,
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
            "Watches that Runway had to start again. A few after an upgrade of the API server are normal. "
            + see("RunwayWatchStale"),
            "short",
            ("sum by (kind) (increase(runway_watch_losses_total[1h]))", "{{kind}}"),
        ),
    ]


def _watches() -> list[Panel]:
    return [
        graph(
            "Age of watches by kind",
            "Bookmarks arrive about once a minute. Runway restarts a watch that is silent for 90 s. "
            + see("RunwayWatchStale", "RunwayExplanationsStale"),
            "s",
            ("max by (kind) (runway_watch_age_seconds)", "{{kind}}"),
            steps=rising(90, 120),
        ),
        graph(
            "Corrections by a resync, last hour",
            f"Objects whose state differed between list and watch. Must be 0. {see('RunwayResyncDrift')}",
            "short",
            ("sum by (kind) (increase(runway_resync_corrections_total[1h]))", "{{kind}}"),
            steps=((None, "green"), (1, "red")),
        ),
        graph(
            "Undecodable objects",
            f"Kubernetes objects that Runway cannot decode completely. Must be 0. {see('RunwayUndecodableObjects')}",
            "short",
            ("max by (kind) (runway_undecodable_objects)", "{{kind}}"),
            steps=((None, "green"), (1, "red")),
        ),
        graph(
            "Oldest finished job without a record",
            "Time since the job finished. Rising: Runway cannot write the record, and loses it if Kubernetes deletes "
            f"the pod first. {see('RunwayEvidenceNotKept')}",
            "s",
            ("max(runway_record_lag_seconds)", "lag"),
            steps=rising(60, 300),
        ),
        graph(
            "Records written, by outcome",
            "Per minute. Runway retries conflict, gone and failed. Endless retries are a fault. "
            + see("RunwayEvidenceNotKept"),
            "cpm",
            ("sum by (outcome) (rate(runway_records_total[$__rate_interval])) * 60", "{{outcome}}"),
        ),
    ]


def _process() -> list[Panel]:
    return [
        graph(
            "Process memory",
            "Resident memory: about 90 MiB, and 6 KiB for each job with its pod. The limit of the Deployment is 1 GiB. "
            f"Raise it in time, see Memory in [Deploy]({DOCUMENTS}/operations.md#deploy). {see('RunwayMemoryHigh')}",
            "bytes",
            ('max by (instance) (process_resident_memory_bytes{job="runway"})', "{{instance}}"),
            steps=rising(640 * 2**20, 768 * 2**20),
        ),
        graph(
            "Process CPU",
            "Cores. One process uses at most about one core. Near one core, responses are slow: find the tenant that "
            f"submits or lists most. {see('RunwaySubmissionsSlow')}",
            "short",
            ('sum by (instance) (rate(process_cpu_seconds_total{job="runway"}[$__rate_interval]))', "{{instance}}"),
            steps=rising(0.7, 0.9),
        ),
        graph(
            "Process uptime",
            "Falls to 0 at a restart: `kubectl -n runway describe pods` gives the reason. " + see("RunwayRestarting"),
            "s",
            ('time() - max by (instance) (process_start_time_seconds{job="runway"})', "{{instance}}"),
        ),
        graph(
            "Open files",
            "Mostly connections and streams. A steady rise is a leak: save the log, then restart. "
            + see("RunwayNoWriter"),
            "short",
            ('max by (instance) (process_open_fds{job="runway"})', "{{instance}}"),
        ),
    ]
