"""Keys and certificates of the cluster, created once with openssl in STATE_DIR.

One certificate authority signs all of them. The subject of a client certificate is its identity: CN is the user, O the
group. RBAC grants each user its permissions.
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates
https://kubernetes.io/docs/setup/best-practices/certificates/
"""

import base64
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from localcluster import addresses, files, paths
from localcluster.commands import run

# The cluster is for demos and tests; the keys never leave this machine, and `down` deletes them.
LIFETIME_DAYS = "3650"


@dataclass(frozen=True, slots=True)
class Certificate:
    """One leaf certificate: `names` are the subject alternative names of a server, empty for a pure client."""

    file: str
    user: str
    group: str = ""
    names: tuple[str, ...] = ()


_LOOPBACK_NAMES = (f"IP:{addresses.LOOPBACK}", "DNS:localhost")

PROMETHEUS_USER = "runway-prometheus"

CERTIFICATES = (
    Certificate("etcd", "etcd", names=_LOOPBACK_NAMES),
    Certificate("etcd-client", "kube-apiserver"),
    Certificate(
        "kube-apiserver",
        "kube-apiserver",
        names=(
            *_LOOPBACK_NAMES,
            # The addresses and names that pods use.
            f"IP:{addresses.BRIDGE_ADDRESS}",
            f"IP:{addresses.KUBERNETES_SERVICE_ADDRESS}",
            "DNS:kubernetes",
            "DNS:kubernetes.default",
            "DNS:kubernetes.default.svc",
            "DNS:kubernetes.default.svc.cluster.local",
        ),
    ),
    # The API server's client certificate for the kubelet's logs and exec; the kubelet authorizes it by webhook.
    Certificate("kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
    Certificate("kubelet", "kubelet", names=(f"IP:{addresses.BRIDGE_ADDRESS}",)),
    # The server certificate of the controller manager and the scheduler, for health and metrics.
    Certificate("loopback", "localhost", names=_LOOPBACK_NAMES),
    Certificate("admin", "runway-admin", "system:masters"),
    Certificate("controller-manager-user", "system:kube-controller-manager"),
    Certificate("scheduler-user", "system:kube-scheduler"),
    Certificate("proxy-user", "system:kube-proxy"),
    # Prometheus' client certificate for the kubelet; monitoring.py grants it access to the metrics.
    Certificate("prometheus", PROMETHEUS_USER),
    # The Node authorizer identifies a kubelet by this user and group.
    # https://kubernetes.io/docs/reference/access-authn-authz/node/
    Certificate("node-user", f"system:node:{addresses.NODE_NAME}", "system:nodes"),
)

CA = paths.PKI_DIR / "ca.pem"
SERVICE_ACCOUNT_KEY = paths.PKI_DIR / "service-account.key"
SERVICE_ACCOUNT_PUBLIC_KEY = paths.PKI_DIR / "service-account.pub"


def certificate(file: str) -> Path:
    return paths.PKI_DIR / f"{file}.pem"


def key(file: str) -> Path:
    return paths.PKI_DIR / f"{file}.key"


def ensure_made() -> bool:
    """Create all keys and certificates, unless this version of the code has created them before.

    Returns True if they are new: the users of the old ones must restart.
    """
    wanted = hashlib.sha256(Path(__file__).read_bytes() + repr(CERTIFICATES).encode()).hexdigest()
    if files.read_json(paths.PKI_DIR / "made-from.json") == wanted:
        return False
    # An atomic rename: a partial set of certificates never exists.
    unfinished = paths.PKI_DIR.with_name("pki.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True, mode=0o700)
    _make_all(unfinished)
    files.write_json(unfinished / "made-from.json", wanted)
    shutil.rmtree(paths.PKI_DIR, ignore_errors=True)
    unfinished.rename(paths.PKI_DIR)
    return True


def kubeconfig(file: str) -> str:
    """Return a self-contained kubeconfig for the user of certificate `file`, as JSON, which is valid YAML."""
    name = "runway-local"
    value = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": name,
                "cluster": {"server": addresses.API_SERVER_URL, "certificate-authority-data": _base64(CA)},
            }
        ],
        "users": [
            {
                "name": file,
                "user": {
                    "client-certificate-data": _base64(certificate(file)),
                    "client-key-data": _base64(key(file)),
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": file}}],
        "current-context": name,
    }
    return json.dumps(value, indent=2) + "\n"


def _make_all(directory: Path) -> None:
    authority_key = directory / "ca.key"
    authority = directory / CA.name
    _make_key(authority_key)
    command = ["openssl", "req", "-x509", "-new", "-key", str(authority_key), "-out", str(authority)]
    command += ["-days", LIFETIME_DAYS, "-subj", "/CN=runway-localcluster-ca"]
    command += ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    run(command)
    for one in CERTIFICATES:
        _make_leaf(directory, one)
    private, public = directory / SERVICE_ACCOUNT_KEY.name, directory / SERVICE_ACCOUNT_PUBLIC_KEY.name
    _make_key(private)
    run(["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)])


def _make_leaf(directory: Path, one: Certificate) -> None:
    leaf_key, request = directory / key(one.file).name, directory / f"{one.file}.csr"
    _make_key(leaf_key)
    group = f"/O={one.group}" if one.group else ""
    run(["openssl", "req", "-new", "-key", str(leaf_key), "-out", str(request), "-subj", f"{group}/CN={one.user}"])
    extensions = ["basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature"]
    # Python 3.13 and later reject a chain without key identifiers.
    extensions += ["subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid"]
    # Server certificates are client certificates too: etcd's gateway calls etcd with the server certificate.
    extensions.append("extendedKeyUsage=clientAuth" + (",serverAuth" if one.names else ""))
    if one.names:
        extensions.append(f"subjectAltName={','.join(one.names)}")
    extension_file = directory / f"{one.file}.ext"
    files.write(extension_file, "\n".join(extensions) + "\n")
    command = ["openssl", "x509", "-req", "-in", str(request), "-out", str(directory / certificate(one.file).name)]
    command += ["-CA", str(directory / CA.name), "-CAkey", str(directory / "ca.key"), "-CAcreateserial"]
    command += ["-days", LIFETIME_DAYS, "-extfile", str(extension_file)]
    run(command)
    request.unlink()
    extension_file.unlink()


def _make_key(path: Path) -> None:
    # Elliptic curve keys take milliseconds, RSA keys seconds. openssl makes them readable only by their owner.
    run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", str(path)])


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
