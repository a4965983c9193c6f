"""The YAML of a node, read into frozen classes, with every mistake said at its place at once.

`units` (durations, sizes), `yamlfile` (YAML with positions), `interpolation` (`${env:…}`, `${file:…}`), `options`
(how a class declares what a user may write), `schema` (the sections), `node` (the whole file), `docs` (the reference,
the JSON Schema and the commented example, out of the same declarations).
Knows no plugin: the options of a plugin are a mapping until the registry builds the plugin's own class.
"""
