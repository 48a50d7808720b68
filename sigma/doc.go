// Package sigma reads Sigma detection rules, compiles them and says which of
// them a log event satisfies, and which relations hold between several events. It
// implements the Sigma specification v2.1.0 with filters and correlations, and
// stands alone: it opens no file and no connection, has no clock, and knows
// nothing about where events come from.
//
// It owns the meaning of a rule: the YAML form, values, wildcards, modifiers,
// conditions, and the mapping from a rule's log source to events. It leaves to
// others the reading of logs, the storage of matches and of correlation state, and
// the word that no older events are awaited, on which windows close. Package
// sigmajson, below this one, reads events that come as JSON.
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
//   - [Parse], [Compile], [Set.Match] and [Correlator] never panic, whatever the
//     input.
//   - One answer in any order. The findings of a [Correlator] depend on the events
//     and not on the order in which they arrive, or on how often, as long as none
//     comes after it was said to be awaited no more. A finding goes out at once
//     and is withdrawn when earlier events that arrive later speak against it.
//   - Bounded memory, see [CorrelatorOptions]; what is evicted is counted. A rule
//     is refused when it grows beyond the bounds of [Parse] through aliases of
//     YAML, modifiers or the repetitions of a regular expression.
//   - Warnings that hold. [Set.Lint] calls a part of a rule impossible, always true
//     or needless only where that is proved; [CheckSchema] agrees with the JSON
//     schemas of the specification.
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
//   - Regular expressions are RE2: no look-around and no back-references. One that
//     may take more than 5000 steps for a character of a value is refused.
//
// Choices for correlations:
//
//   - rules names ids, without regard to case, or names; a name that two rules
//     have is refused, as are cycles. timespan is N followed by s, m, h, d or w; M
//     and y have no fixed length and are refused. generate is taken inside
//     correlation and beside it. A rule that feeds a correlation is no finding of
//     its own, see [Set.Silent], unless a correlation that it feeds says generate.
//   - event_count, value_count, value_sum and the temporal types with gt or gte
//     slide: the window of an event at t is (t - timespan, t], events of one time
//     in the order of their contents. The correlation fires at the event that
//     makes the condition true, and is silent then until the condition has been
//     false or a timespan has passed.
//   - With lt, lte, eq, neq or a range, and for value_avg, value_percentile and
//     value_median whatever the comparison, whole windows are judged when they
//     close: the first starts with the first event of a group, each further one
//     with the first event after the end of the one before. A window without
//     events is not judged: that nothing happened is no finding, and a condition
//     that only an empty window could satisfy is refused.
//   - An event counts once, also where several of the rules match it; a temporal
//     type counts the rules. temporal wants all of them, or as many as its
//     condition says. temporal_ordered takes the longest row of events in the
//     order of the list; events of one time go in either order, but the same event
//     does not follow itself.
//   - Without group-by all events are one group. Values compare folded, an opaque
//     token whole; null is absent and the empty text a value; a field with several
//     values puts the event into the group of each. An event without one of the
//     fields joins no group and is counted by [Correlator.Ungrouped]. Where the
//     mapping reads a native field in place of a rule's own, so does group-by.
//   - value_count over several fields counts tuples. The other value types read
//     numbers as numeric tests do, and skip and count the rest. Sums are exact, so
//     that they do not depend on the order. A percentile is the nearest rank and
//     must be named by percentile in the condition; the median is percentile 50.
//     The specification's own example of value_percentile reads a name, not a
//     number, and names no percentile: it is refused.
//   - An alias holds for group-by and for the field of the condition. In a rule
//     that it does not mention, the field of the alias's own name is read.
//   - A correlation that feeds another is an event there, at the time it fires,
//     or at the end of its window. Its fields are the values of its group, and
//     those that the events of its window have: several where they differ. When
//     it is withdrawn there, what stands on it is too.
package sigma
