"""The bridge of the pods, and kube-proxy's rules."""

import ipaddress
import json
import re
import shutil

from localcluster import addresses
from localcluster.commands import run

IPTABLES_VERSIONS = ("iptables", "ip6tables")
TABLES = ("nat", "filter", "mangle")


def ensure_bridge() -> None:
    """Create the bridge. The API server advertises its address, so the bridge must exist before it starts."""
    if not bridge_exists():
        run(["ip", "link", "add", addresses.BRIDGE, "type", "bridge"])
    # Both commands are idempotent, so they also complete the bridge of a killed run.
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
    """Remove the host ends of the pods' interfaces, which are the ports of our bridge."""
    for link in _links():
        if link.get("master") == addresses.BRIDGE:
            # check=False: the kernel may remove it with the pod's network namespace first.
            run(["ip", "link", "delete", link["ifname"]], check=False)


def remove_bridge() -> None:
    remove_pod_interfaces()
    if bridge_exists():
        run(["ip", "link", "delete", addresses.BRIDGE])


def other_kube_proxy() -> bool:
    """Whether iptables has a Service outside our subnet, so another kube-proxy uses this machine.

    The chains of every kube-proxy have the same names.
    """
    ours = ipaddress.ip_network(addresses.SERVICE_SUBNET)
    if "iptables" not in _installed_versions():
        return False
    rules = (line for line in _save("iptables", "nat") if line.startswith("-A KUBE-SERVICES "))
    services = (match.group(1) for rule in rules if (match := re.search(r" -d (\S+)/32 ", rule)))
    return any(ipaddress.ip_address(service) not in ours for service in services)


def kube_proxy_chains() -> list[str]:
    """Return the chains of our kube-proxy, such as `iptables nat KUBE-SERVICES`."""
    if other_kube_proxy():
        return []
    return [
        f"{version} {table} {chain}"
        for version in _installed_versions()
        for table in TABLES
        for chain in _chains(_save(version, table))
    ]


def remove_kube_proxy_chains() -> None:
    """Remove kube-proxy's chains and the jumps to them, as `kube-proxy --cleanup` does, without its binary."""
    if other_kube_proxy():
        return
    for version in _installed_versions():
        for table in TABLES:
            saved = _save(version, table)
            if chains := _chains(saved):
                jumps = [line for line in saved if re.match(r"-A (?!KUBE-)\S+ .*-j KUBE-", line)]
                script = [f"*{table}"]
                # Declaring a chain flushes it, which removes all references between the chains.
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
