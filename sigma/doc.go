// Package sigma reads Sigma detection rules, compiles them and says which of
// them a log event satisfies. It implements the single-event language of the
// Sigma specification v2.1.0, with filters, and stands alone: it opens no file
// and no connection, and knows nothing about where events come from.
//
// It owns the meaning of a rule: the YAML form, values, wildcards, modifiers,
// conditions, and the mapping from a rule's log source to events. It leaves to
// others the reading of logs, the storage of matches, and correlation over
// several events.
//
// It promises:
//
//   - Nothing is dropped quietly. A document that cannot be honoured comes back
//     as a [Refusal] with a reason for its author; a rule whose log source no
//     entry of the [Mapping] answers is listed by [Set.Unmapped].
//   - Three answers. A test on a field that was withheld answers [CannotTell],
//     and the answer travels through and, or, not and "n of" by Kleene's logic.
//   - Opaque spans. Where [Options.Opaque] finds a token in a value, the token
//     counts as one character. No literal, wildcard or class matches a part of it,
//     so answers do not depend on how tokens are spelt; see [Options].
//   - Determinism. Matches come in the order of rule ids, and [Set.Digest] does
//     not depend on the order in which rules were given.
//   - Speed that hardly depends on the number of rules: an event is asked the few
//     rules of which it holds a necessary literal. An event that no rule matches
//     allocates nothing once its origin is known.
//   - [Parse], [Compile] and [Set.Match] never panic, whatever the input.
//
// Choices where the specification is silent:
//
//   - Field names compare exactly, spaces stripped on both sides.
//   - Values compare as text without regard to case, by simple Unicode folding.
//     A number of a rule is its decimal text.
//   - A field that occurs more than once satisfies a test when one of its values
//     does; negation stands outside.
//   - null holds for an absent field and for a null; the empty string for a field
//     that is present and empty; a lone * for a field that is present.
//   - A numeric test reads decimal numbers, and hexadecimal ones with 0x as
//     Windows writes them. Everything else, opaque tokens included, is not a
//     number and does not match.
//   - A time part reads RFC 3339 and "2006-01-02 15:04:05" (UTC when no zone is
//     given); week is the ISO week. Everything else does not match.
//   - Regular expressions are RE2: no look-around and no back-references.
package sigma
