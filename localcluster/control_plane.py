"""etcd, API server, controller manager and scheduler, with their flags.

Each flag differs from the default and has its reason.
"""

from pathlib import Path

from localcluster import addresses, api, paths, pki
from localcluster.build import Build
from localcluster.component import ComponentSpec

CONTROLLER_MANAGER_KUBECONFIG = paths.CONFIG_DIR / "controller-manager.kubeconfig"
SCHEDULER_KUBECONFIG = paths.CONFIG_DIR / "scheduler.kubeconfig"

# The default client limits (20 and 50 requests/s) would limit pod creation, and a benchmark would measure them.
CLIENT_LIMITS = ("--kube-api-qps=500", "--kube-api-burst=1000")


def etcd() -> ComponentSpec:
    client_url = f"https://{addresses.LOOPBACK}:{addresses.ETCD_CLIENT_PORT}"
    peer_url = f"http://{addresses.LOOPBACK}:{addresses.ETCD_PEER_PORT}"
    metrics_url = f"http://{addresses.LOOPBACK}:{addresses.ETCD_METRICS_PORT}"
    return ComponentSpec(
        name="etcd",
        argv=(
            "etcd",
            "--name=runway-local",
            f"--data-dir={paths.ETCD_DIR}",
            f"--listen-client-urls={client_url}",
            f"--advertise-client-urls={client_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=runway-local={peer_url}",
            # etcd stores every Secret, so only the API server's certificate may read it, even on loopback.
            "--client-cert-auth",
            f"--trusted-ca-file={pki.CA}",
            f"--cert-file={pki.certificate('etcd')}",
            f"--key-file={pki.key('etcd')}",
            # /health without a client certificate.
            f"--listen-metrics-urls={metrics_url}",
            # As kubeadm does: the API server sends no bookmark for a quiet kind without it.
            "--experimental-watch-progress-notify-interval=5s",
            "--logger=zap",
            "--log-level=warn",
        ),
        why_not_healthy=lambda: api.why_not_healthy(f"{metrics_url}/health"),
        timeout=30,
    )


def kube_apiserver(build: Build) -> ComponentSpec:
    return ComponentSpec(
        name="kube-apiserver",
        argv=(
            str(build.binary("kube-apiserver")),
            f"--etcd-servers=https://{addresses.LOOPBACK}:{addresses.ETCD_CLIENT_PORT}",
            f"--etcd-cafile={pki.CA}",
            f"--etcd-certfile={pki.certificate('etcd-client')}",
            f"--etcd-keyfile={pki.key('etcd-client')}",
            # The server can bind only one address, and clients on this machine use 127.0.0.1. Pods use the advertised
            # address, where the api-forwarder listens (see node.py).
            f"--bind-address={addresses.LOOPBACK}",
            f"--secure-port={addresses.API_SERVER_PORT}",
            f"--advertise-address={addresses.BRIDGE_ADDRESS}",
            f"--tls-cert-file={pki.certificate('kube-apiserver')}",
            f"--tls-private-key-file={pki.key('kube-apiserver')}",
            f"--client-ca-file={pki.CA}",
            "--anonymous-auth=false",
            # The tests need real RBAC.
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            # The node's name does not resolve, so logs and exec use its address.
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={pki.CA}",
            f"--kubelet-client-certificate={pki.certificate('kubelet-client')}",
            f"--kubelet-client-key={pki.key('kubelet-client')}",
            f"--service-cluster-ip-range={addresses.SERVICE_SUBNET}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki.SERVICE_ACCOUNT_PUBLIC_KEY}",
            f"--service-account-signing-key-file={pki.SERVICE_ACCOUNT_KEY}",
            # Streaming lists need etcd progress notifications, which Debian's etcd 3.4.23 lacks: every watch from
            # version 0 would fail. https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists
            "--feature-gates=WatchList=false",
            "--profiling=false",
        ),
        # /readyz succeeds only after RBAC's default roles and the system namespaces exist.
        # https://kubernetes.io/docs/reference/using-api/health-checks/
        why_not_healthy=lambda: api.why_not_healthy(
            f"{addresses.API_SERVER_URL}/readyz", authority=pki.CA, client="admin"
        ),
    )


def kube_controller_manager(build: Build) -> ComponentSpec:
    return ComponentSpec(
        name="kube-controller-manager",
        argv=(
            str(build.binary("kube-controller-manager")),
            *_client_of_api_server(CONTROLLER_MANAGER_KUBECONFIG, addresses.CONTROLLER_MANAGER_PORT),
            f"--root-ca-file={pki.CA}",
            f"--service-account-private-key-file={pki.SERVICE_ACCOUNT_KEY}",
            # The controller manager's user has few permissions; each controller has its own role.
            # https://kubernetes.io/docs/reference/access-authn-authz/rbac/#controller-roles
            "--use-service-account-credentials",
            # The default is 50 s, and tests of an unreachable node wait for it. The kubelet renews its lease every 2 s.
            "--node-monitor-grace-period=12s",
            "--node-monitor-period=2s",
        ),
        files={CONTROLLER_MANAGER_KUBECONFIG: pki.kubeconfig("controller-manager-user")},
        why_not_healthy=lambda: api.why_not_healthy(
            f"https://{addresses.LOOPBACK}:{addresses.CONTROLLER_MANAGER_PORT}/healthz", authority=pki.CA
        ),
    )


def kube_scheduler(build: Build) -> ComponentSpec:
    return ComponentSpec(
        name="kube-scheduler",
        argv=(
            str(build.binary("kube-scheduler")),
            *_client_of_api_server(SCHEDULER_KUBECONFIG, addresses.SCHEDULER_PORT),
        ),
        files={SCHEDULER_KUBECONFIG: pki.kubeconfig("scheduler-user")},
        why_not_healthy=lambda: api.why_not_healthy(
            f"https://{addresses.LOOPBACK}:{addresses.SCHEDULER_PORT}/healthz", authority=pki.CA
        ),
    )


def _client_of_api_server(kubeconfig: Path, port: int) -> tuple[str, ...]:
    """Return the common flags of controller manager and scheduler."""
    return (
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--bind-address={addresses.LOOPBACK}",
        f"--secure-port={port}",
        f"--tls-cert-file={pki.certificate('loopback')}",
        f"--tls-private-key-file={pki.key('loopback')}",
        # One of each runs. With leader election, a restart after a kill would wait for the old lease to expire.
        "--leader-elect=false",
        *CLIENT_LIMITS,
        "--profiling=false",
    )
