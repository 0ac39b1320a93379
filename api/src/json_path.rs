//! The JSON paths that definitions of custom resources name fields with: `.spec.replicas`,
//! `.status.conditions[?(@.type=="Ready")].status`.

use serde_json::Value;

/// A path, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    text: Box<str>,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(Box<str>),
    /// From the end where it is negative.
    Index(i64),
    All,
    /// Items of which a condition holds.
    Where(Vec<Step>, Option<(Operator, Value)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Longer ones first: the first that fits is meant.
const OPERATORS: [(&str, Operator); 6] = [
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

// === impl JsonPath ===

impl JsonPath {
    /// Reads a path; `None` when it is none.
    pub fn parse(text: &str) -> Option<JsonPath> {
        let inner = text.trim();
        let inner = inner.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(inner);
        let steps = steps(inner.strip_prefix('$').unwrap_or(inner))?;
        Some(JsonPath { text: text.into(), steps })
    }

    /// The path as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first value that the path leads to.
    pub fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        found(&self.steps, value).into_iter().next()
    }

    /// The fields of a path that has nothing but fields.
    pub fn fields(&self) -> Option<Vec<&str>> {
        self.steps
            .iter()
            .map(|step| if let Step::Field(name) = step { Some(&**name) } else { None })
            .collect()
    }
}

fn found<'v>(steps: &[Step], value: &'v Value) -> Vec<&'v Value> {
    let mut values = vec![value];
    for step in steps {
        values = values.into_iter().flat_map(|value| below(step, value)).collect();
    }
    values
}

fn below<'v>(step: &Step, value: &'v Value) -> Vec<&'v Value> {
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => map.get(&**name).into_iter().collect(),
        (Step::Index(at), Value::Array(items)) => {
            let at = if *at < 0 { items.len() as i64 + at } else { *at };
            usize::try_from(at).ok().and_then(|at| items.get(at)).into_iter().collect()
        }
        (Step::All, Value::Array(items)) => items.iter().collect(),
        (Step::All, Value::Object(map)) => map.values().collect(),
        (Step::Where(path, condition), Value::Array(items)) => items
            .iter()
            .filter(|item| match (found(path, item).first(), condition) {
                (Some(value), Some((operator, wanted))) => operator.holds(value, wanted),
                (found, None) => found.is_some(),
                (None, Some(_)) => false,
            })
            .collect(),
        _ => Vec::new(),
    }
}

// === impl Operator ===

impl Operator {
    fn holds(self, value: &Value, wanted: &Value) -> bool {
        use std::cmp::Ordering;
        let order = match (value, wanted) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (a, b) if a == b => Some(Ordering::Equal),
            _ => None,
        };
        match self {
            Operator::Equal => order == Some(Ordering::Equal),
            Operator::NotEqual => order != Some(Ordering::Equal),
            Operator::Less => order == Some(Ordering::Less),
            Operator::LessOrEqual => order.is_some_and(Ordering::is_le),
            Operator::Greater => order == Some(Ordering::Greater),
            Operator::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
        }
    }
}

fn steps(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = closing(after)?;
            steps.push(bracket(after[..end].trim())?);
            rest = &after[end + 1..];
            continue;
        }
        rest = rest.strip_prefix('.').or_else(|| steps.is_empty().then_some(rest))?;
        if rest.is_empty() && steps.is_empty() {
            break;
        }
        if rest.starts_with('[') {
            continue;
        }
        let (name, after) = name(rest);
        match name.as_str() {
            "" => return None,
            "*" => steps.push(Step::All),
            name => steps.push(Step::Field(name.into())),
        }
        rest = after;
    }
    Some(steps)
}

/// A name up to the next step; a backslash takes the meaning of what follows it.
fn name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '.' | '[' => return (name, &text[at..]),
            '\\' => name.extend(letters.next().map(|(_, letter)| letter)),
            letter => name.push(letter),
        }
    }
    (name, "")
}

/// Where the bracket ends that was opened before.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quoted) = (0, None);
    for (at, letter) in text.char_indices() {
        match (quoted, letter) {
            (Some(mark), letter) if mark == letter => quoted = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quoted = Some(letter),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquoted(text) {
        return Some(Step::Field(name.into()));
    }
    if let Some(condition) = text.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return filter(condition.trim());
    }
    text.parse().ok().map(Step::Index)
}

fn unquoted(text: &str) -> Option<&str> {
    ['\'', '"'].iter().find_map(|mark| text.strip_prefix(*mark)?.strip_suffix(*mark))
}

fn filter(text: &str) -> Option<Step> {
    let text = text.strip_prefix('@')?;
    let at = OPERATORS.iter().filter_map(|(word, operator)| Some((text.find(word)?, word, *operator)));
    let Some((at, word, operator)) = at.min_by_key(|(at, word, _)| (*at, std::cmp::Reverse(word.len())))
    else {
        return Some(Step::Where(steps(text.trim())?, None));
    };
    let wanted = text[at + word.len()..].trim();
    let wanted = match unquoted(wanted) {
        Some(text) => Value::String(text.to_owned()),
        None => serde_json::from_str(wanted).ok()?,
    };
    Some(Step::Where(steps(text[..at].trim())?, Some((operator, wanted))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(path: &str, expected: Value) {
        let object = json!({"spec": {"a.b": 1, "list": [{"name": "x", "n": 1}, {"name": "y", "n": 2}]},
            "metadata": {"annotations": {"example.com/a": "b"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let path = JsonPath::parse(path).expect("a path");
        assert_eq!(path.first(&object).cloned().unwrap_or_default(), expected, "{path:?}");
    }

    #[test]
    fn leads_to_values() {
        check(".spec.list[1].name", json!("y"));
        check(".spec.list[-1].n", json!(2));
        check(".spec.list[*].n", json!(1));
        check(".spec['a.b']", json!(1));
        check(r".spec.a\.b", json!(1));
        check(r".metadata.annotations.example\.com/a", json!("b"));
        check(r#".status.conditions[?(@.type=="Ready")].status"#, json!("True"));
        check(r#".status.conditions[?(@.type=='Done')].status"#, Value::Null);
        check(".spec.list[?(@.n>=2)].name", json!("y"));
        check(".spec.list[?(@.name)].n", json!(1));
        check("{.spec.list[0].name}", json!("x"));
        check(".spec.none.at.all", Value::Null);
    }

    #[test]
    fn refuses_what_is_no_path() {
        for text in [".spec[", ".spec..x", ".spec[x]", ".spec[?(name)]"] {
            assert_eq!(JsonPath::parse(text), None, "{text}");
        }
    }
}
