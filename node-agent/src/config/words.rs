//! What is wrong with a text, in words of people who write such files: what to write instead.

use serde_saphyr::{DefaultMessageFormatter, Error, MessageFormatter};

use super::error::Place;
use super::file::{Fault, FaultKind};

/// A fault of the whole file that makes its single faults mean nothing.
pub(super) fn whole_file(text: &str) -> Option<Fault> {
    let begins = |word: &str| text.lines().position(|line| line.starts_with(word));
    let fault = |line: usize, message: &str| Fault {
        kind: FaultKind::Syntax,
        place: Some(Place { line: line + 1, column: 1 }),
        message: message.to_owned(),
    };
    if let (Some(line), Some(_)) = (begins("apiVersion:"), begins("kind:")) {
        let message = "this is an object of a cluster, not the agent's file. There a policy is an entry of a list: write `policies:`, below it \
                       `- name: NAME` with `cgroups: [\"/a.slice/*\"]` and the object's `spec` (without `selector`); or apply the object with \
                       kubectl and run the agent with --kubernetes";
        return Some(fault(line, message));
    }
    // Tabs are no fault of their own: in a value they are well.
    let tab = text.lines().enumerate().find_map(|(line, text)| {
        let indent = &text[..text.len() - text.trim_start().len()];
        indent.find('\t').map(|column| (line, column))
    });
    let (line, column) = tab?;
    let mut fault = fault(line, "the line is indented with a tab, which YAML does not take: use spaces");
    fault.place = Some(Place { line: line + 1, column: column + 1 });
    Some(fault)
}

/// A fault after which nothing can be read, at the place where it is to be mended.
pub(super) fn syntax(text: &str, place: Place, error: &Error, message: String) -> Fault {
    let fault = |place, message| Fault { kind: FaultKind::Syntax, place: Some(place), message };
    let before = || text.lines().take(place.line).enumerate();
    if matches!(error, Error::MultipleDocuments { .. }) {
        let line = before().filter(|(_, line)| line.starts_with("---")).last().map(|(line, _)| line + 1);
        return fault(Place { line: line.unwrap_or(place.line), column: 1 }, message);
    }
    let is_reference = matches!(error, Error::UnknownAnchor { .. });
    not_closed(text, place).filter(|_| !is_reference).unwrap_or_else(|| fault(place, message))
}

/// The fault of what is not closed before a place, if that is so.
pub(super) fn not_closed(text: &str, place: Place) -> Option<Fault> {
    let open = unclosed(text, place)?;
    Some(Fault { kind: FaultKind::Syntax, place: Some(open.place), message: open.words(text) })
}

/// A bracket, brace or quote that begins something.
struct Open {
    place: Place,
    sign: char,
}

impl Open {
    const fn closed_by(&self) -> char {
        match self.sign {
            '[' => ']',
            '{' => '}',
            quote => quote,
        }
    }

    /// What to write, with what there is of it in its line.
    fn words(&self, text: &str) -> String {
        let line = text.lines().nth(self.place.line - 1).unwrap_or_default();
        let begun: String = line.chars().skip(self.place.column - 1).collect();
        let begun = begun.split(" #").next().unwrap_or_default().trim_end();
        let (sign, close) = (self.sign, self.closed_by());
        // Alone, it goes on in the next lines; and what has fields in it was not meant to be all of the list.
        let is_all = begun.chars().count() > 1 && !(sign == '[' && begun.contains(": "));
        let begun = if is_all { begun } else { "" };
        match (sign, begun) {
            ('[' | '{', "") => {
                format!("`{sign}` is not closed: write `{close}` behind the last of what it holds")
            }
            ('[' | '{', begun) => {
                let begun = begun.trim_end_matches(',');
                format!(
                    "`{sign}` is not closed: write `{close}` behind the last of what it holds, here {begun}{close}"
                )
            }
            (_, begun) => {
                format!("the quote is not closed: write {close} at the end of the text, here {begun}{close}")
            }
        }
    }
}

/// The first thing that begins before a fault and does not end: a bracket or brace without its counterpart, or a quote whose text goes
/// on in the next line. Both are at work only where a value begins.
fn unclosed(text: &str, fault: Place) -> Option<Open> {
    let is_before = |place: Place| (place.line, place.column) <= (fault.line, fault.column);
    let mut open: Vec<Open> = Vec::new();
    let mut quote: Option<Open> = None;
    for (line, text) in text.lines().enumerate() {
        if quote.as_ref().is_some_and(|quote| is_before(quote.place)) {
            return quote;
        }
        let chars: Vec<char> = text.chars().collect();
        let mut column = 0;
        // Where a value may begin.
        let mut begins = true;
        while let Some(&sign) = chars.get(column) {
            let place = Place { line: line + 1, column: column + 1 };
            let next_is = |c: char| chars.get(column + 1) == Some(&c);
            match (&quote, sign) {
                (Some(Open { sign: '"', .. }), '\\') => column += 1,
                (Some(Open { sign: '\'', .. }), '\'') if next_is('\'') => column += 1,
                (Some(open), sign) if open.sign == sign => quote = None,
                (None, '#') if column == 0 || chars[column - 1].is_whitespace() => break,
                (None, '"' | '\'') if begins => quote = Some(Open { place, sign }),
                (None, '[' | '{') if begins => open.push(Open { place, sign }),
                // It belongs to one further out: the last one is not closed.
                (None, ']' | '}') if open.last().is_some_and(|last| last.closed_by() != sign) => {
                    return open.pop().filter(|last| is_before(last.place));
                }
                (None, ']' | '}') => drop(open.pop()),
                _ => {}
            }
            begins = match sign {
                ',' | '[' | '{' => !open.is_empty(),
                '-' => begins,
                blank if blank.is_whitespace() => {
                    begins || column.checked_sub(1).is_some_and(|before| matches!(chars[before], ':' | '-'))
                }
                _ => false,
            };
            column += 1;
        }
    }
    // At the end of the file.
    quote
        .filter(|quote| is_before(quote.place))
        .or_else(|| open.into_iter().find(|open| is_before(open.place)))
}

/// The value that is written at a place, as far as one line has it.
pub(super) fn written(text: &str, place: Place) -> String {
    let line = text.lines().nth(place.line - 1).unwrap_or_default();
    let rest: String = line.chars().skip(place.column - 1).collect();
    let rest = rest.split(" #").next().unwrap_or_default().trim();
    // Nothing, as of a field without a value.
    if rest.starts_with(':') {
        return String::new();
    }
    if rest.starts_with(['[', '{', '"', '\'']) {
        return rest.to_owned();
    }
    let in_flow = line.chars().take(place.column - 1).any(|c| matches!(c, '[' | '{'));
    let ends: &[char] = if in_flow { &[',', ']', '}'] } else { &[] };
    rest.split(|c| ends.contains(&c)).next().unwrap_or_default().trim().to_owned()
}

/// What is wrong where `written` stands.
pub(super) fn message(error: &Error, written: &str) -> String {
    match error {
        Error::SerdeUnknownField { field, expected, .. } if expected.contains(&"cgroups") && is_of_spec(field) => {
            format!("`{field}` is a field of the policy's `spec`: write `spec:`, and below it `{field}`")
        }
        Error::SerdeUnknownField { field, expected, .. } => match similar(field, expected) {
            Some(known) => format!("there is no field `{field}` here; did you mean `{known}`?"),
            None => format!("there is no field `{field}` here; there are {}", expected.join(", ")),
        },
        Error::SerdeUnknownVariant { variant, .. } if goes_on(variant, written) => {
            format!("`{written}` goes on in the next line, which is indented deeper: indent that line like this one")
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => match similar(variant, expected) {
            Some(known) => format!("`{variant}` is not known; did you mean {known}?"),
            None => format!("`{variant}` is not known; write one of {}", expected.join(", ")),
        },
        Error::SerdeMissingField { field, .. } => format!("the field `{field}` is missing"),
        Error::DuplicateMappingKey { key, .. } => match key {
            Some(key) => format!("`{key}` is there twice; remove one"),
            None => "a field is there twice; remove one".to_owned(),
        },
        Error::MultipleDocuments { .. } => {
            "a line `---` begins another document, and the agent reads one: remove the line, and write all policies below one `policies:`"
                .to_owned()
        }
        Error::Unexpected { expected, .. } if expected.contains("sequence") => no_list(written),
        Error::Unexpected { expected, .. } if expected.contains("mapping") => no_fields(written),
        Error::InvalidScalar { ty, .. } => no_scalar(ty, written),
        Error::SerdeInvalidType { unexpected, expected, .. }
        | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            format!("{} is not {expected}", quoted(written, unexpected))
        }
        Error::NullIntoString { .. } => "there is nothing here: write a value, or remove the field".to_owned(),
        Error::QuotingRequired { value, .. } => format!("write it in quotes: \"{value}\""),
        Error::UnknownAnchor { .. } => {
            "to YAML a * at the beginning is a reference: write the value in quotes; a glob begins with /, for example \"/*/a\"".to_owned()
        }
        Error::Eof { .. } => "the file ends in the middle of a value: look for a bracket, brace or quote that is not closed".to_owned(),
        Error::Unexpected { .. } => "one value belongs here, not a list or fields".to_owned(),
        // Our own.
        Error::Message { .. } => DefaultMessageFormatter.format_message(error).into_owned(),
        error => plain_words(&DefaultMessageFormatter.format_message(error)).to_owned(),
    }
}

/// Whether a value that begins with what is written in its line has more below.
fn goes_on(value: &str, written: &str) -> bool {
    !written.is_empty() && value.strip_prefix(written).is_some_and(|rest| rest.starts_with(' '))
}

/// What a parser says of YAML, for people who never wrote one.
fn plain_words(message: &str) -> &'static str {
    if message.contains("mapping values are not allowed") {
        "a field can't begin here: indent the line like those beside it, or, where `: ` is a part of a text, put the text in quotes"
    } else if message.contains("illegal placement of ':'") {
        "a field can't begin here"
    } else {
        "this can't be read: indent fields and dashes like those beside them, write each field as `name: value`, and put a text with signs \
         such as @ % & ! ` in quotes"
    }
}

/// Whether a policy's `spec` has such a field.
fn is_of_spec(field: &str) -> bool {
    let spec = serde_json::Map::from_iter([(field.to_owned(), serde_json::Value::Null)]);
    let read = serde_json::from_value::<api::PolicySpec>(spec.into());
    read.err().is_none_or(|error| !error.to_string().starts_with("unknown field"))
}

fn quoted(written: &str, otherwise: &str) -> String {
    if !written.is_empty() && !written.contains(':') {
        return format!("`{written}`");
    }
    match otherwise {
        "sequence" => "a list".to_owned(),
        "map" => "what has fields".to_owned(),
        otherwise => otherwise.to_owned(),
    }
}

/// Something else stands in the place of a list.
fn no_list(written: &str) -> String {
    if let Some(numbers) = range(written) {
        return format!("`{written}` is not a list: write the numbers one by one, {numbers}");
    }
    if written.is_empty() || written == "~" || written == "null" {
        return "a list belongs here, and there is nothing: write its elements in brackets, [A, B], or remove the field".to_owned();
    }
    if written.starts_with('{') || written.contains(": ") || written.ends_with(':') {
        return "a list belongs here, not fields: begin each element with `- `, on a line of its own"
            .to_owned();
    }
    format!("`{written}` is not a list: write it in brackets, [{written}]")
}

/// Something else stands in the place of fields.
fn no_fields(written: &str) -> String {
    if written.is_empty() || written == "~" || written == "null" {
        return "fields belong here, and there is nothing: write them below, each as `name: value`, or write {}".to_owned();
    }
    if written.starts_with('[') || written.starts_with('-') {
        return "fields belong here, each as `name: value`, not a list: remove the brackets or the dash"
            .to_owned();
    }
    format!("`{written}` stands where fields belong: write them below, each as `name: value`")
}

fn no_scalar(ty: &str, written: &str) -> String {
    if let Some(numbers) = range(written) {
        return format!("`{written}` is not one number: write the numbers one by one, {numbers}");
    }
    match ty {
        "bool" | "boolean" => format!("`{written}` is neither true nor false"),
        ty if ty.starts_with('u') => format!("`{written}` is not a whole number from 0 on"),
        ty if ty.starts_with('i') => format!("`{written}` is not a whole number"),
        ty => format!("`{written}` is not a {ty}"),
    }
}

/// The list that a range such as `0-3` or `0-1,4` means.
fn range(written: &str) -> Option<String> {
    let text = written.trim_matches(['"', '\'']);
    let ids = host::parse::id_list(text, std::path::Path::new("")).ok()?;
    let few = (2..=64).contains(&ids.len());
    few.then(|| format!("[{}]", ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
}

/// The known word that was probably meant: equal but for case, or few edits away.
fn similar(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let word = word.to_lowercase();
    let distance = |known: &str| strsim::damerau_levenshtein(&word, &known.to_lowercase());
    known
        .iter()
        .copied()
        .min_by_key(|known| distance(known))
        .filter(|known| distance(known) <= 1 + known.len() / 4)
}
