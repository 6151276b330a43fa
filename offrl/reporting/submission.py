"""What `submission.toml` says of a bundle: who made the runs, of which code, how it was tuned."""

import re
import unicodedata
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from offrl.errors import InputError
from offrl.text import one_line
from offrl.toml import Strict, parse_toml, shortened, shown, to_toml

TUNING = {
    "none": "no tuning: defaults, or the settings of a paper on other data",
    "offline": "tuned offline, on data or by off-policy evaluation",
    "online-selection": "tuned online: settings were chosen by returns in the simulator",
    "published": "settings that the protocol or a paper gives for these data, tuned as it says",
}
_IN_PATHS = r"[!#-&(-;=?-\[\]-_a-~]"  # what is seen, without quotes, brackets of tags, backslashes
_DIGEST = r"^[0-9a-f]{64}$"


def _check_text(text: str) -> str:
    if not text.strip() or one_line(text) != text:
        raise PydanticCustomError(
            "text", "expected one line of text without characters that cannot be seen"
        )
    return unicodedata.normalize("NFC", text)  # as tables have it


OFFRL = "offrl"  # in place of an address of code: the algorithm ships with offrl


def _check_code(code: str) -> str:
    return code if code == OFFRL else _check_url(code)


def _check_url(url: str) -> str:
    if not re.fullmatch(
        r"https?://[A-Za-z0-9.-]+\.[A-Za-z]{2,}(:\d+)?(/[!#-&(-;=?-\[\]-_a-~]*)?", url
    ):
        raise PydanticCustomError("url", "expected an address such as https://github.com/me/code")
    if re.match(r"https?://([^/]*\.)?example\.(com|org|net)(/|$)", url):
        raise PydanticCustomError("url", "expected the address of the code, not a place holder")
    return url


Text = Annotated[str, Field(max_length=200), AfterValidator(_check_text)]
Name = Annotated[str, Field(max_length=60), AfterValidator(_check_text)]
Url = Annotated[str, Field(max_length=300), AfterValidator(_check_url)]
Amount = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False, strict=False)]
Count = Annotated[int, Field(ge=0, lt=2**53)]


class Tuning(Strict):
    """How the settings came about, and what that cost."""

    kind: Literal["none", "offline", "online-selection", "published"]
    settings_tried: Annotated[int, Field(ge=1, lt=2**53)]  # 1: those of the runs alone
    online_episodes: Count  # played in the simulator to choose them
    notes: Text | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        played = self.online_episodes > 0
        if self.kind in ("none", "offline") and played:
            raise PydanticCustomError(
                "tuning", 'online_episodes are above 0, so kind is "online-selection"'
            )
        if self.kind == "online-selection" and not played:
            raise PydanticCustomError(
                "tuning", "kind is online-selection, so online_episodes are above 0"
            )
        if self.kind == "none" and self.settings_tried > 1:
            raise PydanticCustomError("tuning", "kind is none, so settings_tried is 1")
        return self


class Compute(Strict):
    """What training took."""

    hours: Amount  # of all runs together
    hardware: Text
    parameters: Count | None = None  # of all networks that act


class Submission(Strict):
    """The content of submission.toml."""

    name: Name  # of the line on the board
    authors: list[Name] = Field(min_length=1, max_length=50)
    contact: Text  # an address to write to
    code: Annotated[str, Field(max_length=300), AfterValidator(_check_code)]
    commit: str = Field(pattern=r"^[0-9a-f]{7,64}$")
    paper: Url | None = None
    licence: Name  # of the code
    extra_data: Text | None = None  # beside the protocol's data sets
    replaces: str | None = Field(default=None, pattern=_DIGEST)  # an earlier bundle, by digest
    tuning: Tuning
    compute: Compute


def read_submission(text: str, where: str) -> Submission:
    """The submission of a text. Raises InputError, with a line for each fault, for any other."""
    try:
        values = parse_toml(text)
    except ValueError as error:
        raise InputError(f"{where}: expected TOML, but {str(error)[:200]}") from None
    try:
        return Submission.model_validate(values)
    except ValidationError as error:
        faults = error.errors()
    lines = []
    for fault in faults[:20]:
        key = ".".join(shortened(part) for part in fault["loc"]) or "(table)"
        if fault["type"] == "missing":
            lines.append(f"{where}: {key}: is not declared; add it")
            continue
        value = fault["input"]
        found = "" if isinstance(value, dict) else f", found {shown(value)}"
        lines.append(f"{where}: {key}: {fault['msg']}{found}")
    raise InputError("\n".join(map(one_line, lines)))


def submission_text(submission: Submission) -> str:
    """The text of submission.toml, of which `read_submission` makes the same again."""
    return to_toml(submission.model_dump(exclude_none=True))
