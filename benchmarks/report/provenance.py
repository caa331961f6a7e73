"""Where results come from, as tables: files, models, machines, software."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stpm.benchmarks.records.environment import Environment
from stpm.benchmarks.records.result_file import Record
from stpm.benchmarks.report.tables import Table

Named = Sequence[tuple[str, Record]]
"""Result files by name, with their contents."""


def provenance_tables(results: Named) -> list[Table]:
    """Tabulate the headers of result files; the same machine stands once.

    Args:
        results: (name, content) a file.
    """
    files = Table("result files", ("", "kind", "measured (UTC)", "code", "load"))
    models = Table("models, by SHA-256 of the checkpoint or the bundle's graph", ("", "SHA-256"))
    hashes: dict[tuple[str, str], None] = {}
    for name, content in results:
        created = content["created"].replace("T", " ").removesuffix("+00:00")
        load = content["environment"].get("load_average", [])
        shown = f"{load[0]:.1f}" if load else ""
        files.add(name, content["kind"], created, _code(content["environment"]), shown)
        hashes |= dict.fromkeys(content["models"].items())
    for name, sha256 in hashes:
        models.add(name, sha256)
    return [files, models, _machines(results)]


def _code(environment: Environment) -> str:
    commit = environment["commit"]
    if commit is None:
        return f"stpm {environment['packages'].get('stpm', '')}"
    changes = "\nwith changes" if commit["with_changes"] else ""
    return f"{commit['id'][:12]}{changes}"


def _machines(results: Named) -> Table:
    """Tabulate hardware and versions, a column for each different environment."""
    columns: list[tuple[list[str], dict[str, str]]] = []
    for name, content in results:
        described = _describe(content["environment"])
        for names, known in columns:
            if known == described:
                names.append(name)
                break
        else:
            columns.append(([name], described))
    table = Table("machine and software", ("", *(", ".join(names) for names, _ in columns)))
    for key in dict.fromkeys(key for _, described in columns for key in described):
        table.add(key, *(described.get(key, "") for _, described in columns))
    return table


def _describe(environment: Environment) -> dict[str, str]:
    processor = environment["processor"]
    memory = environment["memory_gib"]
    described = {
        "processor": f"{processor['usable_cores']} x {processor['model']}",
        "vector instructions": " ".join(processor["flags"]) or "none of those checked",
        "frequency governor": processor["governor"] or "unknown",
        "memory": "unknown" if memory is None else f"{memory:g} GiB",
        "GPU": "\n".join(_gpu(gpu) for gpu in environment["gpus"]) or "none",
        "system": environment["system"],
        "Python": environment["python"],
    }
    return described | dict(environment["packages"])


def _gpu(gpu: Mapping[str, str]) -> str:
    others = ", ".join(f"{key} {value}" for key, value in gpu.items() if key != "name")
    return f"{gpu.get('name', 'unknown')} ({others})" if others else gpu.get("name", "unknown")
