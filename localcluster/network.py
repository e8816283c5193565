"""The bridge that the pods hang on, and kube-proxy's rules."""

import ipaddress
import json
import re
import shutil

from localcluster import addresses
from localcluster.commands import run

IPTABLES_VERSIONS = ("iptables", "ip6tables")
TABLES = ("nat", "filter", "mangle")


def ensure_bridge() -> None:
    """Make the bridge before the API server starts: its address is advertised, and the forwarder listens there."""
    if not bridge_exists():
        run(["ip", "link", "add", addresses.BRIDGE, "type", "bridge"])
    # Both are no-ops when done already, which also mends a bridge that a killed run left half made.
    run(
        [
            "ip",
            "address",
            "replace",
            f"{addresses.BRIDGE_ADDRESS}/{addresses.POD_SUBNET_PREFIX}",
            "dev",
            addresses.BRIDGE,
        ]
    )
    run(["ip", "link", "set", addresses.BRIDGE, "up"])


def bridge_exists() -> bool:
    return any(link["ifname"] == addresses.BRIDGE for link in _links())


def remove_pod_interfaces() -> None:
    """Remove the host's ends of the pods' interfaces: those that hang on our bridge."""
    for link in _links():
        if link.get("master") == addresses.BRIDGE:
            # check=False: it goes by itself once the pod's network namespace is gone.
            run(["ip", "link", "delete", link["ifname"]], check=False)


def remove_bridge() -> None:
    remove_pod_interfaces()
    if bridge_exists():
        run(["ip", "link", "delete", addresses.BRIDGE])


def other_kube_proxy() -> bool:
    """Whether another Kubernetes' kube-proxy uses this machine: it has a Service outside our service subnet.

    The chains of every kube-proxy have the same names.
    """
    ours = ipaddress.ip_network(addresses.SERVICE_SUBNET)
    if "iptables" not in _installed_versions():
        return False
    rules = (line for line in _save("iptables", "nat") if line.startswith("-A KUBE-SERVICES "))
    services = (match.group(1) for rule in rules if (match := re.search(r" -d (\S+)/32 ", rule)))
    return any(ipaddress.ip_address(service) not in ours for service in services)


def kube_proxy_chains() -> list[str]:
    """The chains that our kube-proxy made, as `iptables nat KUBE-SERVICES`."""
    if other_kube_proxy():
        return []
    return [
        f"{version} {table} {chain}"
        for version in _installed_versions()
        for table in TABLES
        for chain in _chains(_save(version, table))
    ]


def remove_kube_proxy_chains() -> None:
    """Remove kube-proxy's chains and the jumps to them, as `kube-proxy --cleanup` does, without needing its binary."""
    if other_kube_proxy():
        return
    for version in _installed_versions():
        for table in TABLES:
            saved = _save(version, table)
            if chains := _chains(saved):
                jumps = [line for line in saved if re.match(r"-A (?!KUBE-)\S+ .*-j KUBE-", line)]
                script = [f"*{table}"]
                # Declaring a chain flushes it; after that nothing refers to any of them.
                script += [f":{chain} - [0:0]" for chain in chains]
                script += ["-D" + jump.removeprefix("-A") for jump in jumps]
                script += [f"-X {chain}" for chain in chains]
                run([f"{version}-restore", "--noflush", "--wait=10"], stdin="\n".join([*script, "COMMIT", ""]))


def _chains(saved: list[str]) -> list[str]:
    return [line[1:].split()[0] for line in saved if line.startswith(":KUBE-")]


def _save(version: str, table: str) -> list[str]:
    return run([f"{version}-save", "-t", table]).splitlines()


def _installed_versions() -> list[str]:
    return [version for version in IPTABLES_VERSIONS if shutil.which(f"{version}-save")]


def _links() -> list[dict[str, str]]:
    links: list[dict[str, str]] = json.loads(run(["ip", "-json", "link", "show"]))
    return links
