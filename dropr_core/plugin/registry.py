"""Plugins: found by name, checked before use, built.

Owns the way from a name in the YAML to an instance that keeps its contract (`find`, `create`), and the list of what
is installed. stevedore finds, pluggy checks and calls. Only what is named is imported. Must not know what any plugin
does, nor read the YAML.
"""

import importlib.metadata
import types
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import pluggy
from stevedore import NamedExtensionManager

from dropr_core import hookspecs
from dropr_core.config.options import NOWHERE, SourceLocation, build, suggest
from dropr_core.contracts.context import Context
from dropr_core.errors import ConfigError, DroprError, PluginError
from dropr_core.plugin.conformity import KINDS as CONTRACTED
from dropr_core.plugin.conformity import contract_of, shortcoming
from dropr_core.system.loading import unforked

if TYPE_CHECKING:
    from dropr_core.contracts.transport import Answerer

KINDS = (*CONTRACTED, "observer")

DEFAULT_TRANSPORTS: Mapping[str, str] = types.MappingProxyType(
    dict.fromkeys(("http", "https"), "curl")
    | {"loopback": "loopback"}
    | dict.fromkeys(("zmq+tcp", "zmq+ipc", "zmq+inproc"), "zmq")
)
"""URL scheme → transport, so that a usual peer imports no transport but its own."""

_PACKAGES = {
    ("storage", "sqlite"): "dropr-storage-sqlite",
    ("storage", "postgres"): "dropr-storage-postgres",
    ("storage", "fs"): "dropr-storage-fs",
    ("transport", "curl"): "dropr-transport-curl",
    ("transport", "zmq"): "dropr-transport-zmq",
    ("gateway", "beanstalk"): "dropr-gateway-beanstalk",
    ("gateway", "gearman"): "dropr-gateway-gearman",
    ("gateway", "http"): "dropr-gateway-http",
    ("gateway", "memcache"): "dropr-gateway-memcache",
    ("gateway", "sqs"): "dropr-gateway-sqs",
    ("gateway", "stomp"): "dropr-gateway-stomp",
    ("handler", "django"): "dropr-django",
    ("observer", "opentelemetry"): "dropr-observer-opentelemetry",
}


@attrs.frozen
class Found:
    """A plugin that is installed and could be imported."""

    kind: str
    name: str
    module: Any
    """What the entry point names: a module, as a rule."""
    value: str
    """``package.module`` as the entry point has it."""

    @property
    def distribution(self) -> str:
        """Which installed package brings it; ``?`` if that is not recorded."""
        return self._origin()[0]

    @property
    def version(self) -> str:
        """That package's version."""
        return self._origin()[1]

    def _origin(self) -> tuple[str, str]:
        # Looked up when asked for: it reads every installed package, and only errors and listings need it.
        return _origins(self.kind, self.name).get(self.value, ("?", "?"))

    def __str__(self) -> str:
        distribution, version = self._origin()
        return f"{self.kind} '{self.name}' ({distribution} {version}, {self.value})"


@attrs.frozen
class Installed:
    """One line of ``dropr plugins``."""

    kind: str
    name: str
    distribution: str
    version: str
    abilities: tuple[str, ...] = ()
    error: str = ""
    """Why it cannot be used; empty if it can."""


def find(kind: str, name: str) -> Found:
    """Import the plugin ``name`` of one of KINDS.

    Raises PluginError: not installed, claimed by two packages, cannot be imported, or made for a newer
    contract. The text says what to do.
    """
    group = f"dropr.{kind}"
    failures: list[BaseException] = []
    try:
        with unforked:
            found = _load(group, name, failures.append)
    except (Exception, SystemExit) as error:
        failures.append(error)
        found = {}
    if len(found) > 1 or (found and failures):
        claims = [f"{who} {version} ({value})" for value, (who, version) in _origins(kind, name).items()]
        raise PluginError(f"{kind} '{name}' is claimed by {' and by '.join(claims)}; uninstall all but one of them")
    if failures:
        value, (who, version) = next(iter(_origins(kind, name).items()), ("?", ("?", "?")))
        cause = failures[-1]
        raise PluginError(
            f"{kind} '{name}' ({who} {version}, {value}) cannot be imported: {type(cause).__name__}: {cause}; "
            f"repair or reinstall {who}"
        ) from cause
    if not found:
        raise PluginError(_missing(kind, name))
    value, module = found.popitem()
    result = Found(kind, name, module, value)
    contract = getattr(module, "DROPR_CONTRACT", 1)
    if not isinstance(contract, int) or contract > hookspecs.CONTRACT:
        raise PluginError(
            f"{result} is written for contract {contract!r} of dropr, this dropr speaks {hookspecs.CONTRACT}; "
            "upgrade dropr-core, or install an older version of the plugin"
        )
    return result


def _load(group: str, name: str, failed: Callable[[BaseException], None]) -> dict[str, Any]:
    """Entry point value → what it names, of every claimant."""
    manager: NamedExtensionManager[Any] = NamedExtensionManager(
        group,
        [name],
        on_load_failure_callback=lambda _manager, _entry, error: failed(error),
        on_missing_entrypoints_callback=lambda _names: None,
    )
    # Never `.driver`: that hands back the class where the instance is falsy.
    found = {extension.entry_point.value: extension.plugin for extension in manager.extensions}
    if not found:
        # stevedore remembers per process and on disk, and may be behind what was installed just now.
        for entry in importlib.metadata.entry_points(group=group, name=name):
            found[entry.value] = entry.load()
    return found


def create(
    kind: str, name: str, options: Any, context: Context, where: str = "", at: SourceLocation = NOWHERE
) -> Any:  # the caller knows the kind, and with it the type
    """Build a plugin of one of the five kinds and check that it keeps its contract.

    ``options``: the mapping of the YAML, which stands at path ``where`` (of the file ``at``), or an instance
    of the plugin's ``Options`` made before. Raises ConfigError for wrong options, PluginError for a plugin
    that is missing or broken; a DroprError of the plugin's own passes through.
    """
    found = find(kind, name)
    manager = register(found, found.module)
    hook = f"dropr_{kind}"
    if not getattr(manager.hook, hook).get_hookimpls():
        raise PluginError(f"{found} has no function {hook}(options, context) marked with @hookimpl; tell its author")
    instance = make(found, manager, hook, read_options(found, options, where or kind, at), context)
    _check(found, instance)
    return instance


def read_options(found: Found, options: Any, where: str, at: SourceLocation = NOWHERE) -> Any:
    """The plugin's ``Options`` from the YAML's mapping; None if it takes none. Raises ConfigError."""
    cls = getattr(found.module, "Options", None)
    if cls is None:
        if options:
            raise ConfigError([f"{where}: {found.kind} '{found.name}' takes no options; remove {', '.join(options)}"])
        return None
    if not isinstance(cls, type) or not attrs.has(cls):
        raise PluginError(f"{found} has Options that are no attrs class; tell its author")
    if isinstance(options, cls):
        return options
    return build(cls, options or {}, where, at)


def keypair(name: str, secret: str | None = None) -> tuple[str, str]:
    """(secret, public) key of a transport that has keys of its own; a fresh pair, unless ``secret`` is given.

    Raises PluginError if this transport has none, UsageError for a secret that is none of its.
    """
    found = find("transport", name)
    manager = register(found, found.module)
    if not manager.hook.dropr_keypair.get_hookimpls():
        raise PluginError(f"{found} needs no keys of its own; `dropr keygen` without a name makes the key of a pair")
    pair: tuple[str, str] = manager.hook.dropr_keypair(secret=secret)
    return pair


def asgi_application(name: str, answerer: "Answerer") -> Callable[..., Any]:
    """The ASGI application of the transport ``name``, which answers peers. Raises PluginError if it has none."""
    found = find("transport", name)
    manager = register(found, found.module)
    if not manager.hook.dropr_asgi.get_hookimpls():
        raise PluginError(f"{found} cannot be mounted into an application; use one that serves http://, such as 'curl'")
    application: Callable[..., Any] = manager.hook.dropr_asgi(answerer=answerer)
    return application


def installed(kinds: Iterable[str] = KINDS) -> list[Installed]:
    """Everything that is installed, imported to see whether it can be used. For people: slow, and it never raises."""
    lines = []
    for kind in kinds:
        entries = importlib.metadata.entry_points(group=f"dropr.{kind}")
        for entry in sorted(entries, key=lambda entry: (entry.name, entry.value)):
            who, version = _origins(kind, entry.name).get(entry.value, ("?", "?"))
            abilities: tuple[str, ...] = ()
            error = ""
            try:
                found = find(kind, entry.name)
                register(found, found.module)
                abilities = _abilities(found)
            except DroprError as problem:
                error = str(problem)
            lines.append(Installed(kind, entry.name, who, version, abilities, error))
    return lines


def transport_for(scheme: str, names: Iterable[str] = ()) -> str:
    """The name of the transport that serves ``scheme``; ``names`` are those that the YAML names.

    A transport that the YAML names and that claims the scheme wins over the default one; others are only
    asked where there is no default. Raises PluginError if none claims it, or several do.
    """
    default = DEFAULT_TRANSPORTS.get(scheme)
    for name in names:
        if name != default and scheme in schemes_of(find("transport", name)):
            return name
    if default:
        return default
    claims, known, broken = set(), set(DEFAULT_TRANSPORTS), []
    for name in _names("transport"):
        try:
            schemes = schemes_of(find("transport", name))
        except PluginError as error:
            broken.append(str(error))
            continue
        known.update(schemes)
        if scheme in schemes:
            claims.add(name)
    if len(claims) > 1:
        raise PluginError(
            f"'{scheme}://' is claimed by the transports {' and '.join(sorted(claims))}; "
            "name the one to use under transports:"
        )
    if not claims:
        more = "".join(f"; besides, {text}" for text in broken)
        raise PluginError(f"no installed transport serves '{scheme}://'{suggest(scheme, known)}{more}")
    return claims.pop()


def schemes_of(found: Found) -> tuple[str, ...]:
    """The URL schemes of a transport plugin: its module's ``SCHEMES``, else those of its class."""
    schemes = getattr(found.module, "SCHEMES", None)
    return tuple(_of_classes(found, "schemes") if schemes is None else schemes)


def register(found: Found, plugin: object) -> pluggy.PluginManager:
    """A manager of its own for each plugin: nothing of one can get into the way of another."""
    manager = pluggy.PluginManager("dropr")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, found.name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        text = " ".join(str(error).split())
        raise PluginError(f"{found} does not keep to the hooks of dropr: {text}; tell its author") from error
    return manager


def make(found: Found, manager: pluggy.PluginManager, hook: str, options: Any, context: Context) -> Any:
    """What a hook of a plugin makes. Raises PluginError; a DroprError of the plugin's own passes through."""
    call: Callable[..., Any] = getattr(manager.hook, hook)
    try:
        return call(options=options, context=context)
    except DroprError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{found} cannot be started: {type(error).__name__}: {error}") from error


def _check(found: Found, instance: object) -> None:
    """What a hook returns is checked here: pluggy checks only the names of its arguments."""
    problem = shortcoming(found.kind, instance)
    if problem:
        raise PluginError(f"{found} {problem}; tell its author")


def _abilities(found: Found) -> tuple[str, ...]:
    declared = getattr(found.module, "ABILITIES", None)
    return tuple(sorted(_of_classes(found, "abilities") if declared is None else declared))


def _of_classes(found: Found, attribute: str) -> Iterable[str]:
    """A declaration of the class that implements the contract, where the module itself does not repeat it."""
    contract = contract_of(found.kind)
    for value in list(getattr(found.module, "__dict__", {}).values()):
        if contract and isinstance(value, type) and issubclass(value, contract) and value is not contract:
            declared = getattr(value, attribute, ())
            if not isinstance(declared, property):
                return [str(item) for item in declared]
    return ()


def _names(kind: str) -> list[str]:
    return sorted({entry.name for entry in importlib.metadata.entry_points(group=f"dropr.{kind}")})


def _origins(kind: str, name: str) -> dict[str, tuple[str, str]]:
    """Entry point value → (distribution, version). stevedore's cache does not keep them."""
    entries = importlib.metadata.entry_points(group=f"dropr.{kind}", name=name)
    return {entry.value: (entry.dist.name, entry.dist.version) if entry.dist else ("?", "?") for entry in entries}


def _missing(kind: str, name: str) -> str:
    if kind not in KINDS:
        return f"there is no kind of plugin '{kind}'{suggest(kind, KINDS)}"
    names = _names(kind)
    package = _PACKAGES.get((kind, name))
    if package:
        advice = f"; run: pip install {package} (or install its wheel, which 'make dist' builds)"
    else:
        advice = suggest(name, names)
    listed = "" if "use one of" in advice else f" (installed: {', '.join(names) or 'none'})"
    return f"{kind} '{name}' is not installed{advice}{listed}"
