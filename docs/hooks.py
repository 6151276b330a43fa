"""Pages of the site that are made when it is built, each from its own file.

A page per algorithm (its docstring and source), per protocol (its TOML), per family of data sets
(their cards), per wing of the library (its public names) and per notebook; README.md is the first
page, and the other pages outside docs/ join it. Links between files of the repository lead to the
pages that are made of them.
"""

import ast
import html
import json
import posixpath
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import tomli_w
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from offrl.data.card import Card, shipped_cards
from offrl.text import counted

ROOT = Path(__file__).parents[1]
OUTSIDE = {  # files outside docs/ that are pages, and what these are called in the site
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
WINGS = ("data", "learning", "statistics", "plots")  # those with public names of their own
FAMILIES = {  # what a family of data sets is called; others by their names
    "d4rl": "D4RL",
    "dapg": "DAPG",
    "made": "Made by offrl",
    "minari": "Minari",
    "neorl2": "NeoRL-2",
    "ogbench": "OGBench",
    "recipe": "Recipes",
}
TEMPLATE = r"^\[`\w+\.py`\]\(\.\./(offrl/templates/\w+\.py)\)$"
SOURCE = "the-file"  # the anchor of a page's own file
# What a page begins with that has every word somewhere, and so comes before others in a search.
SEARCHED_LAST = "---\nsearch:\n  boost: 0.3\n---\n\n"


# The hooks, in the order in which MkDocs calls them.


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """The files of docs/ and the pages that are made."""
    for name, text in made_pages():
        if files.get_file_from_path(name) is None:
            files.append(File.generated(config, name, content=text))
    if config.nav is not None:
        config.nav = filled(config.nav, [file.src_uri for file in files.documentation_pages()])
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page's text with the links of the site, that of an algorithm with its own file."""
    folder, name = posixpath.split(page.file.src_uri)
    source = ROOT / "algorithms" / f"{Path(name).stem}.py"
    if folder == "algorithms" and source.is_file():
        markdown = with_source(markdown, source)
    markdown = re.sub(TEMPLATE, _with_file, markdown, flags=re.MULTILINE)
    markdown = re.sub(r"^(```python) norun$", r"\1", markdown, flags=re.MULTILINE)  # of tests
    return led(markdown, page.file.src_uri)


def filled(nav: list[Any], pages: Iterable[str]) -> list[Any]:
    """A navigation whose entries of folders are the pages there that no other entry names."""
    named = set(_entries(nav))
    rest = sorted(set(pages) - named)

    def members(folder: str) -> list[str]:
        inside = "" if folder == "./" else folder.rstrip("/")
        return [page for page in rest if posixpath.dirname(page) == inside]

    def spread(entries: list[Any]) -> list[Any]:
        every: list[Any] = []
        for entry in entries:
            if isinstance(entry, dict):
                every.append({k: spread(v) if isinstance(v, list) else v for k, v in entry.items()})
            else:
                every += members(entry) if entry.endswith("/") else [entry]
        return every

    return spread(nav)


def _entries(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from _entries(entry)


# Links.


def led(markdown: str, uri: str) -> str:
    """The text with links to files of the repository as links to the pages made of them."""
    sources = {made: source for source, made in OUTSIDE.items()}
    place = posixpath.dirname(sources.get(uri, f"docs/{uri}"))

    def link(match: re.Match[str]) -> str:
        target, _, anchor = match[1].partition("#")
        if not target or ":" in target:
            return match[0]
        made = site_uri(posixpath.normpath(posixpath.join(place, target)))
        if made is None:
            return match[0]
        made, _, own = made.partition("#")
        anchor = anchor or own
        relative = posixpath.relpath(made, posixpath.dirname(uri) or ".")
        return f"]({relative}{'#' * bool(anchor)}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", link, markdown)


def site_uri(path: str) -> str | None:
    """Where the site has a file of the repository; None where it has not."""
    if path in OUTSIDE:
        return OUTSIDE[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/").replace(".ipynb", ".md")
    if re.fullmatch(r"algorithms/\w+\.py", path):
        return f"{path[:-3]}.md#{SOURCE}"
    if re.fullmatch(r"protocols/[\w-]+\.toml", path):
        return f"{path[:-5]}.md"
    return None


# Pages.


def made_pages() -> Iterator[tuple[str, str]]:
    """Every page that is made: where it stands in the site, and its Markdown."""
    for source, name in OUTSIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        yield name, SEARCHED_LAST + text if name == "changelog.md" else text
    for path in sorted((ROOT / "docs").glob("*.ipynb")):
        yield f"{path.stem}.md", notebook_page(json.loads(path.read_text(encoding="utf-8")))
    for path in sorted((ROOT / "algorithms").glob("*.py")):
        yield f"algorithms/{path.stem}.md", f"# {path.stem}\n"
    protocols = {path: path.read_text(encoding="utf-8") for path in _files("protocols")}
    yield "protocols/shipped.md", protocol_list(protocols)
    for path, text in protocols.items():
        yield f"protocols/{path.stem}.md", protocol_page(path.name, text)
    families: dict[str, list[Card]] = {}
    for card in shipped_cards().values():
        families.setdefault(card.family, []).append(card)
    yield "datasets/shipped.md", family_list(families)
    for family, cards in families.items():
        yield f"datasets/{family}.md", family_page(family, cards)
    shown: set[str] = set()
    for wing in ("", *WINGS):
        yield f"api/offrl{wing and '.'}{wing}.md", api_page(wing, shown)


def _files(group: str) -> list[Path]:
    return sorted((ROOT / group).glob("*.toml"))


def with_source(markdown: str, path: Path) -> str:
    """An algorithm's page with the docstring of its file before the first section, and the file."""
    text = path.read_text(encoding="utf-8")
    head, *sections = re.split(r"^(?=## )", markdown, maxsplit=1, flags=re.MULTILINE)
    head = head.partition("\n`offrl show ")[0]  # where to read what follows here
    docstring = ast.get_docstring(ast.parse(text)) or ""
    return "\n".join(
        [
            head,
            "## Equations and differences\n",
            docstring_markdown(docstring),
            "",
            *sections,
            "",
            f"## The file {{ #{SOURCE} }}\n",
            f"`algorithms/{path.name}`, whole. `offrl show {path.stem}` prints its defaults.\n",
            fenced(text, "python"),
        ]
    )


def _with_file(link: re.Match[str]) -> str:
    """The file in place of a paragraph that is but a link to it."""
    return fenced((ROOT / link[1]).read_text(encoding="utf-8"), "python")


def fenced(text: str, language: str) -> str:
    """A block of code, which may hold fences itself."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def docstring_markdown(text: str) -> str:
    """A plain docstring as Markdown: paragraphs, lists, and indented equations as they are.

    An indented line after an item of a list belongs to the item, other ones are equations.
    """
    blocks: list[tuple[str, list[str]]] = []  # kinds "text", "item" and "code"; their lines
    kind = ""
    for line in text.splitlines():
        if not line.strip():
            kind = ""
        elif re.match(r"(\d+\.|[-*]) ", line):
            blocks.append((kind := "item", [line]))
        else:
            new = kind if kind == "item" else "code" if line.startswith("  ") else "text"
            if new != kind:
                blocks.append((kind := new, []))
            blocks[-1][1].append(line)
    parts = []
    for kind, lines in blocks:
        if kind == "code":
            parts.append(fenced("\n".join(line.removeprefix("    ") for line in lines), "text"))
        else:
            parts.append(escaped(" ".join(line.strip() for line in lines)))
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    """Text whose characters mean nothing in Markdown, but for code between backquotes."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if i % 2 else re.sub(r"([\\*_>\[\]{}#|])", r"\\\1", part).replace("<", "&lt;")
        for i, part in enumerate(parts)
    )


def cell(value: object) -> str:
    """A value as a cell of a table."""
    if value is None:
        return ""
    form = {int: ",", float: ".6g"}.get(type(value), "")
    text = format(value, form) if form else str(value)
    return " ".join(html.escape(text).replace("|", "&#124;").split())


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are Markdown."""
    names = [*head]
    lines = [names, ["---"] * len(names), *([*row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def protocol_list(protocols: dict[Path, str]) -> str:
    """The page on the protocols that ship: a table of them."""
    rows = []
    for path, text in protocols.items():
        values = tomllib.loads(text)
        algorithms = ", ".join(f"`{name}`" for name in values["algorithms"])
        counts = (len(values["datasets"]), len(values["seeds"]), values["steps"])
        link = f"[{values['id']}]({path.stem}.md)"
        rows.append([link, cell(values["title"]), *map(cell, counts), algorithms])
    head = ("protocol", "title", "data sets", "seeds", "steps", "algorithms")
    return f"# Protocols that ship\n\n{table(head, rows)}\n"


def protocol_page(name: str, text: str) -> str:
    """The page of a protocol: what it is, and its file."""
    values = tomllib.loads(text)
    facts = {"version": values["version"], "source": values["source"]}
    facts |= {"seeds": values["seeds"], "gradient steps": values["steps"]}
    facts |= {f"evaluation: {key.replace('_', ' ')}": v for key, v in values["evaluation"].items()}
    rows = [[key, cell(value)] for key, value in facts.items()]
    rows += [["algorithms", ", ".join(f"`{label}`" for label in values["algorithms"])]]
    rows += [["data sets", ", ".join(map(card_link, values["datasets"]))]]
    paragraphs = [escaped(part) for part in values.get("notes", "").strip().splitlines()]
    return "\n\n".join(
        [
            f"# {values['id']}",
            f"{escaped(values['title'])}.",
            fenced(f"offrl run {values['id']} -o runs", "bash"),
            table(("setting", "value"), rows),
            *paragraphs,
            f"## The file {{ #{SOURCE} }}",
            f"`protocols/{name}`; `offrl show {values['id']}` shows it with what it extends.",
            fenced(text, "toml"),
        ]
    )


def card_link(name: str) -> str:
    """A link from a protocol's page to the card of a data set that ships."""
    return f"[{name}](../datasets/{shipped_cards()[name].family}.md#{name})"


def family_list(families: dict[str, list[Card]]) -> str:
    """The page on the data sets that ship: a table of their families."""
    rows = [
        [
            f"[{FAMILIES.get(family, family)}]({family}.md)",
            cell(len(cards)),
            cell(sum(card.scored for card in cards)),
            cell("; ".join(sorted({card.licence for card in cards}))),
        ]
        for family, cards in families.items()
    ]
    head = ("family", "data sets", "with a simulator and references", "licences")
    return f"# Data sets that ship\n\n{table(head, rows)}\n"


def family_page(family: str, cards: list[Card]) -> str:
    """The page of a family: tables of its data sets, and each card whole.

    Columns that would be empty in all of them are left out.
    """
    name = FAMILIES.get(family, family)
    cards = sorted(cards, key=lambda card: card.id)
    columns: dict[str, Callable[[Card], object]] = {
        "transitions": lambda card: card.expected.transitions,
        "episodes": lambda card: card.expected.episodes,
        "mean return": lambda card: card.expected.mean_return,
        "0 is": lambda card: card.reference and card.reference.min,
        "100 is": lambda card: card.reference and card.reference.max,
    }
    columns = {
        head: of for head, of in columns.items() if any(of(card) is not None for card in cards)
    }
    lines = [
        f"# {name}",
        f"{counted(len(cards), 'data set')}. `offrl show ID` shows a card with all that is known; "
        "what is not known is empty.",
        '<div class="filtered" markdown>',
    ]
    groups: dict[str, list[Card]] = {}
    for card in cards:
        groups.setdefault(card.group or card.family, []).append(card)
    for group, members in sorted(groups.items()):
        rows = [
            [
                f"[{card.id}](#{card.id})",
                escaped(card.title),
                *(cell(of(card)) for of in columns.values()),
            ]
            for card in members
        ]
        head = ("data set", "title", *columns)
        lines += [f"## {group} {{ #group-{group} }}" if len(groups) > 1 else "", table(head, rows)]
    lines += ["</div>", "## Cards", *map(card_details, cards)]
    return "\n\n".join(line for line in lines if line)


def card_details(card: Card) -> str:
    """A card whole, folded, as TOML."""
    values = card.model_dump(exclude_defaults=True, exclude_none=True)
    text = html.escape(tomli_w.dumps(values, multiline_strings=True))
    return (
        f'<details><summary>{card.id} v{card.version}</summary><div id="{card.id}">'
        f"<pre data-search-exclude><code>{text}</code></pre></div></details>"
    )


def api_page(wing: str, shown: set[str]) -> str:
    """The page of the public names of a wing, or of offrl itself.

    Args:
        wing: its name; "" for offrl.
        shown: the objects that earlier pages describe, which this page links; it adds its own.
    """
    module = f"offrl.{wing}".rstrip(".")
    path = ROOT.joinpath(*module.split("."), "__init__.py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("offrl."):
            names |= {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    names.pop("__version__", None)
    known = [f"[`{name}`][{home}]" for name, home in names.items() if home in shown]
    lines = [f"# {module}", docstring_markdown(ast.get_docstring(tree) or "")]
    if known:
        lines.append(f"Described elsewhere: {', '.join(known)}.")
    for home in names.values():
        if home not in shown:
            shown_bare = "\n    options: { show_if_no_docstring: true }"
            lines.append(f"::: {home}{shown_bare if _fields_alone(home) else ''}")
    shown.update(names.values())
    return SEARCHED_LAST + "\n\n".join(lines)


def _fields_alone(home: str) -> bool:
    """Whether an object is a class whose fields no signature shows, as those of pydantic."""
    module, _, name = home.rpartition(".")
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    if not path.is_file():
        return False
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            methods = [each.name for each in node.body if isinstance(each, ast.FunctionDef)]
            return "__init__" not in methods and not node.decorator_list
    return False


def notebook_page(notebook: dict[str, Any]) -> str:
    """A notebook as a page: its texts, its code, and what the code printed."""
    lines = []
    for each in notebook["cells"]:
        text = "".join(each["source"])
        if each["cell_type"] == "markdown":
            lines.append(text)
            continue
        lines.append(fenced(text, "python"))
        for output in each.get("outputs", []):
            lines.append(_output(output))
    return "\n\n".join(lines)


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        alt = html.escape("".join(data.get("text/plain", "figure")))
        return f'<img alt="{alt}" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    return fenced("".join(data.get("text/plain", output.get("text", ""))), "text")
