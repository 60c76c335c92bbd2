//! `tag`: the part of Go's templates that docker's documents show, with the functions that docker adds.
//!
//! Enters: a template, before anything starts; then a container. Leaves: the tag's text. Can go wrong: a template that docker
//! would refuse, when the container starts at the latest: it is refused when it is read, because types are known by then.
//! What Go has beyond this (conditions, loops, variables) is told apart from what nobody has.

use std::collections::BTreeMap;

use super::Info;

/// Fields of docker's `Info` that are texts.
const FIELDS: &[&str] = &[
    "ID",
    "FullID",
    "Name",
    "Command",
    "ImageID",
    "ImageFullID",
    "ImageName",
    "Hostname",
    "DaemonName",
    "ContainerID",
    "ContainerName",
    "ContainerImageID",
    "ContainerImageName",
    "LogPath",
];
/// Its other fields.
const DOCKERS: &[&str] = &[
    "Config",
    "ContainerEntrypoint",
    "ContainerArgs",
    "ContainerCreated",
    "ContainerEnv",
    "ContainerLabels",
];
/// What Go has by itself.
const GOS: &[&str] = &[
    "and", "block", "break", "call", "continue", "define", "else", "end", "eq", "ge", "gt", "html", "if",
    "js", "le", "len", "lt", "ne", "not", "or", "print", "printf", "println", "range", "slice", "template",
    "urlquery", "with",
];
/// Parentheses in one another.
const DEPTH_MAX: usize = 20;
/// Spaces that `pad` adds on one side.
const PAD_MAX: usize = 1024;

/// A template, read.
#[derive(Clone, Debug)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Value(Node),
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// Docker would not take it.
    Wrong(String),
    /// Docker might take it.
    DockerOnly(String),
}

impl Bad {
    pub(super) fn text(self) -> String {
        let (Bad::Wrong(text) | Bad::DockerOnly(text)) = self;
        format!("template: log-tag: {text}")
    }
}

fn wrong(text: impl Into<String>) -> Bad {
    Bad::Wrong(text.into())
}

#[derive(Clone, Debug)]
enum Node {
    Field(&'static str),
    Text(String),
    Number(i64),
    Nil,
    /// `.ExtraAttributes nil`
    Extra,
    /// A key of a map.
    Key(Box<Node>, String),
    Call(Function, Vec<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Json,
    Split,
    Join,
    Title,
    Lower,
    Upper,
    Pad,
    Truncate,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    List,
    Map,
    Nil,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    Number(i64),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
    /// What a map does not have.
    None,
}

impl Function {
    fn named(name: &str) -> Option<Function> {
        Some(match name {
            "json" => Function::Json,
            "split" => Function::Split,
            "join" => Function::Join,
            "title" => Function::Title,
            "lower" => Function::Lower,
            "upper" => Function::Upper,
            "pad" => Function::Pad,
            "truncate" => Function::Truncate,
            "index" => Function::Index,
            _ => return None,
        })
    }

    /// What it takes; `json` takes anything, `index` is looked at by itself.
    fn takes(self) -> &'static [Kind] {
        match self {
            Function::Split => &[Kind::Text, Kind::Text],
            Function::Join => &[Kind::List, Kind::Text],
            Function::Title | Function::Lower | Function::Upper => &[Kind::Text],
            Function::Pad => &[Kind::Text, Kind::Number, Kind::Number],
            Function::Truncate => &[Kind::Text, Kind::Number],
            Function::Json | Function::Index => &[],
        }
    }
}

impl Node {
    fn kind(&self) -> Kind {
        match self {
            Node::Number(_) => Kind::Number,
            Node::Nil => Kind::Nil,
            Node::Extra => Kind::Map,
            Node::Call(Function::Split, _) => Kind::List,
            Node::Field(_) | Node::Text(_) | Node::Key(..) | Node::Call(..) => Kind::Text,
        }
    }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Says where it is wrong, and with what.
    pub(super) fn new(text: &str) -> Result<Template, Bad> {
        let mut parts = Vec::new();
        let (mut rest, mut trim) = (text, false);
        loop {
            let (before, after) = match rest.split_once("{{") {
                Some((before, after)) => (before, Some(after)),
                None => (rest, None),
            };
            let mut before = if trim { before.trim_start() } else { before };
            let Some(after) = after else {
                parts.push(Part::Text(before.to_owned()));
                return Ok(Template { parts });
            };
            // `{{- ` takes the blanks before it away, ` -}}` those behind it.
            let inside = match after.strip_prefix('-').filter(|a| a.starts_with(char::is_whitespace)) {
                Some(inside) => {
                    before = before.trim_end();
                    inside
                }
                None => after,
            };
            parts.push(Part::Text(before.to_owned()));
            let (action, behind) = match inside.trim_start().strip_prefix("/*") {
                Some(comment) => {
                    let (_, behind) = comment.split_once("*/").ok_or_else(|| wrong("unclosed comment"))?;
                    let end = behind.find("}}").ok_or_else(|| wrong("unclosed comment"))?;
                    (behind.get(..end).unwrap_or_default(), behind.get(end + 2..).unwrap_or_default())
                }
                None => close(inside).ok_or_else(|| wrong(format!("unclosed action in {text:?}")))?,
            };
            let is_comment = inside.trim_start().starts_with("/*");
            let plain = action.strip_suffix('-').filter(|a| a.is_empty() || a.ends_with(char::is_whitespace));
            trim = plain.is_some();
            let action = plain.unwrap_or(action).trim();
            if !is_comment {
                let node = Parser::read(action).map_err(|bad| {
                    let at = |text: String| format!("{{{{{action}}}}}: {text}");
                    match bad {
                        Bad::Wrong(text) => Bad::Wrong(at(text)),
                        Bad::DockerOnly(text) => Bad::DockerOnly(at(text)),
                    }
                })?;
                parts.push(Part::Value(node));
            }
            rest = behind;
        }
    }

    /// The text for a container. `extra`: the attributes that a driver was asked to add.
    ///
    /// # Errors
    /// What depends on the values: an index that a list does not have.
    pub(super) fn render(&self, info: &Info, extra: &BTreeMap<String, String>) -> Result<String, String> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value(node) => {
                    let value = node.value(info, extra).map_err(|e| format!("template: log-tag: {e}"))?;
                    out.push_str(&printed(&value));
                }
            }
        }
        Ok(out)
    }
}

/// What stands before the `}}` that is in no string, and what follows it.
fn close(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(q) if q == c => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if text.get(at..).is_some_and(|rest| rest.starts_with("}}")) => {
                return Some((text.get(..at)?, text.get(at + 2..)?));
            }
            None => {}
        }
    }
    None
}

/// As Go prints it.
fn printed(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Number(n) => n.to_string(),
        Value::List(list) => format!("[{}]", list.join(" ")),
        Value::Map(map) => {
            let all: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{value}")).collect();
            format!("map[{}]", all.join(" "))
        }
        Value::None => "<no value>".to_owned(),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// `.Name`; `attached`: what stands before it, without a blank, has it.
    Field {
        name: String,
        attached: bool,
    },
    Word(String),
    Text(String),
    Number(i64),
    Open,
    Close,
    Pipe,
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn read(action: &str) -> Result<Node, Bad> {
        let mut parser = Parser { tokens: tokens(action)?, at: 0, depth: 0 };
        let node = parser.pipeline()?;
        match parser.peek() {
            None if node.kind() == Kind::Nil => Err(wrong("nil is not a command")),
            None => Ok(node),
            Some(_) => Err(wrong("unexpected right paren")),
        }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn pipeline(&mut self) -> Result<Node, Bad> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(wrong(format!("more than {DEPTH_MAX} parentheses in one another")));
        }
        let mut node = self.command(None)?;
        while self.peek() == Some(&Token::Pipe) {
            self.at += 1;
            node = self.command(Some(node))?;
        }
        self.depth -= 1;
        Ok(node)
    }

    /// `before`: what a pipe hands over, as the last argument.
    fn command(&mut self, before: Option<Node>) -> Result<Node, Bad> {
        let Some(first) = self.peek().cloned() else { return Err(wrong("missing value for command")) };
        let function = match &first {
            Token::Word(word) => Function::named(word),
            _ => None,
        };
        if let Some(function) = function {
            self.at += 1;
            let mut arguments = Vec::new();
            while !matches!(self.peek(), None | Some(Token::Pipe | Token::Close)) {
                arguments.push(self.operand()?);
            }
            arguments.extend(before);
            return call(function, arguments);
        }
        let node = self.operand()?;
        let more = before.is_some() || !matches!(self.peek(), None | Some(Token::Pipe | Token::Close));
        if more { Err(wrong("can't give argument to what is no function")) } else { Ok(node) }
    }

    fn operand(&mut self) -> Result<Node, Bad> {
        let Some(token) = self.peek().cloned() else { return Err(wrong("missing value for command")) };
        self.at += 1;
        let mut node = match token {
            Token::Field { name, .. } => self.field(&name)?,
            Token::Text(text) => Node::Text(text),
            Token::Number(n) => Node::Number(n),
            Token::Word(word) if word == "nil" => Node::Nil,
            Token::Word(word)
                if matches!(word.as_str(), "true" | "false") || GOS.contains(&word.as_str()) =>
            {
                return Err(Bad::DockerOnly(format!("{word} is not supported by the process runtime")));
            }
            Token::Word(word) => match Function::named(&word) {
                Some(_) => return Err(wrong(format!("{word} wants arguments: put it in parentheses"))),
                None => {
                    return Err(wrong(format!(
                        "function {word:?} not defined; there are json, split, join, title, lower, upper, pad, truncate"
                    )));
                }
            },
            Token::Open => {
                let node = self.pipeline()?;
                if self.peek() != Some(&Token::Close) {
                    return Err(wrong("unclosed left paren"));
                }
                self.at += 1;
                node
            }
            Token::Close => return Err(wrong("unexpected right paren")),
            Token::Pipe => return Err(wrong("missing value for command")),
        };
        while let Some(Token::Field { name, attached: true }) = self.peek().cloned() {
            if node.kind() != Kind::Map {
                return Err(wrong(format!("can't evaluate field {name} of what is no map")));
            }
            self.at += 1;
            node = Node::Key(Box::new(node), name);
        }
        Ok(node)
    }

    fn field(&mut self, name: &str) -> Result<Node, Bad> {
        if let Some(known) = FIELDS.iter().find(|known| **known == name) {
            return Ok(Node::Field(known));
        }
        if name == "ExtraAttributes" {
            return match self.peek() {
                Some(Token::Word(word)) if word == "nil" => {
                    self.at += 1;
                    Ok(Node::Extra)
                }
                _ => Err(wrong(
                    "wrong number of args for ExtraAttributes: want 1 got 0; say .ExtraAttributes nil",
                )),
            };
        }
        if name.is_empty() || DOCKERS.contains(&name) {
            return Err(Bad::DockerOnly(format!(".{name} is not supported by the process runtime")));
        }
        Err(wrong(format!(
            "can't evaluate field {name}; there are .ID .FullID .Name .Command .ImageID .ImageFullID .ImageName \
             .Hostname .DaemonName .ExtraAttributes"
        )))
    }
}

fn call(function: Function, arguments: Vec<Node>) -> Result<Node, Bad> {
    let kinds: Vec<Kind> = arguments.iter().map(Node::kind).collect();
    let good = match function {
        Function::Json => kinds.len() == 1,
        Function::Index => matches!(kinds.as_slice(), [Kind::List, Kind::Number] | [Kind::Map, Kind::Text]),
        _ => kinds == function.takes(),
    };
    let name = format!("{function:?}").to_lowercase();
    if !good {
        let usage = match function {
            Function::Json => "VALUE",
            Function::Split => "TEXT SEPARATOR",
            Function::Join => "LIST SEPARATOR",
            Function::Title | Function::Lower | Function::Upper => "TEXT",
            Function::Pad => "TEXT SPACES-BEFORE SPACES-BEHIND",
            Function::Truncate => "TEXT LENGTH",
            Function::Index => "LIST NUMBER",
        };
        return Err(wrong(format!("wrong arguments for {name}: it is {name} {usage}")));
    }
    let range = match function {
        Function::Pad => 0..=PAD_MAX,
        Function::Truncate | Function::Index => 0..=usize::MAX,
        _ => return Ok(Node::Call(function, arguments)),
    };
    let numbers = arguments.iter().filter_map(|a| if let Node::Number(n) = a { Some(*n) } else { None });
    match numbers.into_iter().find(|n| !usize::try_from(*n).is_ok_and(|n| range.contains(&n))) {
        Some(n) => Err(wrong(format!("{name}: {n} is out of range"))),
        None => Ok(Node::Call(function, arguments)),
    }
}

impl Node {
    fn value(&self, info: &Info, extra: &BTreeMap<String, String>) -> Result<Value, String> {
        Ok(match self {
            Node::Field(name) => Value::Text(field(info, name)),
            Node::Text(text) => Value::Text(text.clone()),
            Node::Number(n) => Value::Number(*n),
            Node::Nil => Value::None,
            Node::Extra => Value::Map(extra.clone()),
            Node::Key(map, key) => match map.value(info, extra)? {
                Value::Map(map) => map.get(key).cloned().map_or(Value::None, Value::Text),
                _ => Value::None,
            },
            Node::Call(function, arguments) => {
                let all: Vec<Value> =
                    arguments.iter().map(|a| a.value(info, extra)).collect::<Result<_, _>>()?;
                apply(*function, &all)?
            }
        })
    }
}

fn apply(function: Function, arguments: &[Value]) -> Result<Value, String> {
    let text = |f: &dyn Fn(&str) -> String, text: &String| Ok(Value::Text(f(text)));
    let number = |n: &i64| usize::try_from(*n).unwrap_or_default();
    match (function, arguments) {
        (Function::Json, [value]) => Ok(Value::Text(json(value))),
        (Function::Lower, [Value::Text(t)]) => text(&str::to_lowercase, t),
        (Function::Upper, [Value::Text(t)]) => text(&str::to_uppercase, t),
        (Function::Title, [Value::Text(t)]) => text(&title, t),
        (Function::Split, [Value::Text(t), Value::Text(by)]) => Ok(Value::List(match by.as_str() {
            // Go's: its characters.
            "" => t.chars().map(String::from).collect(),
            by => t.split(by).map(str::to_owned).collect(),
        })),
        (Function::Join, [Value::List(list), Value::Text(by)]) => Ok(Value::Text(list.join(by))),
        (Function::Pad, [Value::Text(t), Value::Number(before), Value::Number(behind)]) => {
            let spaces = |n: &i64| " ".repeat(number(n));
            Ok(Value::Text(if t.is_empty() { String::new() } else { spaces(before) + t + &spaces(behind) }))
        }
        // Bytes, but no half of a character.
        (Function::Truncate, [Value::Text(t), Value::Number(n)]) => {
            Ok(Value::Text(t.get(..t.floor_char_boundary(number(n))).unwrap_or_default().to_owned()))
        }
        (Function::Index, [Value::List(list), Value::Number(n)]) => match list.get(number(n)) {
            Some(one) => Ok(Value::Text(one.clone())),
            None => Err(format!("error calling index: index out of range: {n}")),
        },
        // Go gives the empty text here, and no value for a field.
        (Function::Index, [Value::Map(map), Value::Text(key)]) => {
            Ok(Value::Text(map.get(key).cloned().unwrap_or_default()))
        }
        (function, _) => Err(format!("{function:?}: invalid value; expected string").to_lowercase()),
    }
}

fn json(value: &Value) -> String {
    let text = match value {
        Value::Text(text) => serde_json::to_string(text),
        Value::Number(n) => serde_json::to_string(n),
        Value::List(list) => serde_json::to_string(list),
        Value::Map(map) => serde_json::to_string(map),
        Value::None => Ok("null".to_owned()),
    };
    text.unwrap_or_default()
}

/// Go's `strings.Title`: every letter after what is no letter, digit or underscore.
fn title(text: &str) -> String {
    let mut inside = false;
    let mut out = String::new();
    for c in text.chars() {
        if inside {
            out.push(c)
        } else {
            out.extend(c.to_uppercase())
        }
        inside = c.is_alphanumeric() || c == '_';
    }
    out
}

fn field(info: &Info, name: &str) -> String {
    let short = |id: &str| id.get(..12).unwrap_or(id).to_owned();
    match name {
        "ID" => short(&info.id),
        "FullID" | "ContainerID" => info.id.clone(),
        "Name" => info.name.clone(),
        "ContainerName" => format!("/{}", info.name),
        "Command" => info.command.join(" "),
        // There are no images here; the name stands for the id.
        "ImageID" => short(&info.image),
        "ImageFullID" | "ImageName" | "ContainerImageID" | "ContainerImageName" => info.image.clone(),
        "Hostname" => info.hostname.clone(),
        "LogPath" => info.log_path.display().to_string(),
        _ => "docker".to_owned(),
    }
}

fn tokens(action: &str) -> Result<Vec<Token>, Bad> {
    let mut out = Vec::new();
    let mut rest = action;
    let mut blank = true;
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    while let Some(c) = rest.chars().next() {
        let behind = rest.get(c.len_utf8()..).unwrap_or_default();
        let attached = !std::mem::replace(&mut blank, c.is_whitespace());
        let word = |from: &str| from.find(|c| !is_word(c)).unwrap_or(from.len());
        let (token, after) = match c {
            c if c.is_whitespace() => {
                rest = behind;
                continue;
            }
            '.' => {
                let (name, after) = behind.split_at(word(behind));
                // What follows a closing parenthesis or another field at once is a part of it.
                let part = matches!(out.last(), Some(Token::Close | Token::Field { .. }));
                (Token::Field { name: name.to_owned(), attached: attached && part }, after)
            }
            '(' => (Token::Open, behind),
            ')' => (Token::Close, behind),
            '|' => (Token::Pipe, behind),
            '`' => {
                let (text, after) =
                    behind.split_once('`').ok_or_else(|| wrong("unterminated raw quoted string"))?;
                (Token::Text(text.to_owned()), after)
            }
            '"' => quoted(behind)?,
            c if c.is_ascii_digit() || matches!(c, '-' | '+') => {
                let end = behind.find(|c| !is_word(c) && c != '.').map_or(rest.len(), |end| end + 1);
                let (digits, after) = rest.split_at(end);
                let number = digits.parse().map_err(|_| wrong(format!("bad number syntax: {digits:?}")))?;
                (Token::Number(number), after)
            }
            '$' | ':' | '=' | '\'' => {
                return Err(Bad::DockerOnly(format!("{c} is not supported by the process runtime")));
            }
            c if is_word(c) => {
                let (name, after) = rest.split_at(word(rest));
                (Token::Word(name.to_owned()), after)
            }
            c => return Err(wrong(format!("unexpected {c:?} in command"))),
        };
        out.push(token);
        rest = after;
    }
    Ok(out)
}

/// A string of Go whose first quote has been read.
fn quoted(text: &str) -> Result<(Token, &str), Bad> {
    let mut out = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next() {
            Some('"') => return Ok((Token::Text(out), chars.as_str())),
            Some('\\') => out.push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some(c @ ('"' | '\\')) => c,
                Some(c) => {
                    return Err(Bad::DockerOnly(format!("\\{c} is not supported by the process runtime")));
                }
                None => return Err(wrong("unterminated quoted string")),
            }),
            Some(c) => out.push(c),
            None => return Err(wrong("unterminated quoted string")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> Info {
        Info {
            id: "0123456789abcdef".repeat(4),
            name: "ecs-web-1".into(),
            image: "repo/Web:latest".into(),
            command: vec!["sh".into(), "-c".into()],
            hostname: "host".into(),
            ..Info::default()
        }
    }

    fn text(template: &str) -> Result<String, String> {
        let extra =
            BTreeMap::from([("APP".to_owned(), "shop".to_owned()), ("B".to_owned(), "<2>".to_owned())]);
        Template::new(template).map_err(Bad::text)?.render(&info(), &extra)
    }

    #[test]
    fn functions_of_docker_are_as_docker_has_them() {
        for (template, want) in [
            ("web", "web"),
            ("{{.ID}}", "0123456789ab"),
            ("{{lower .ImageName}}", "repo/web:latest"),
            ("{{upper .Name}}|{{ .Name | title }}", "ECS-WEB-1|Ecs-Web-1"),
            ("{{json .Name}} {{json (split .Name \"-\")}}", "\"ecs-web-1\" [\"ecs\",\"web\",\"1\"]"),
            ("{{split .ImageName \"/\"}}", "[repo Web:latest]"),
            ("{{join (split .Name \"-\") \".\"}}", "ecs.web.1"),
            ("{{index (split .ImageName `:`) 1}}", "latest"),
            ("[{{pad .Hostname 1 2}}]", "[ host  ]"),
            ("{{truncate .Name 5}}{{truncate .Name 99}}", "ecs-wecs-web-1"),
            ("{{(.ExtraAttributes nil).APP}}", "shop"),
            ("{{(.ExtraAttributes nil).NONE}}", "<no value>"),
            ("{{.ExtraAttributes nil}}", "map[APP:shop B:<2>]"),
            ("{{json (.ExtraAttributes nil)}}", "{\"APP\":\"shop\",\"B\":\"<2>\"}"),
            ("{{(.ExtraAttributes nil).APP | upper | json}}", "\"SHOP\""),
            ("a {{- .Hostname -}} b{{/* nothing */}}c", "ahostbc"),
            ("{{\"a}}b\\\"\" | upper}}", "A}}B\""),
            ("{{.ContainerName}} {{.DaemonName}}", "/ecs-web-1 docker"),
        ] {
            assert_eq!(text(template).unwrap(), want, "{template}");
        }
    }

    #[test]
    fn what_docker_would_refuse_is_refused_when_it_is_read() {
        for (template, want) in [
            ("{{.Nope}}", "template: log-tag: {{.Nope}}: can't evaluate field Nope"),
            ("{{.ID", "unclosed action"),
            ("{{}}", "missing value for command"),
            ("{{reverse .ID}}", "function \"reverse\" not defined"),
            ("{{.ExtraAttributes}}", "wrong number of args for ExtraAttributes: want 1 got 0"),
            ("{{.ID.Name}}", "can't evaluate field Name of what is no map"),
            ("{{split .ID}}", "it is split TEXT SEPARATOR"),
            ("{{join .Name \"-\"}}", "it is join LIST SEPARATOR"),
            ("{{truncate .ID -1}}", "truncate: -1 is out of range"),
            ("{{.ID .Name}}", "can't give argument"),
            ("{{(.ID}}", "unclosed left paren"),
            ("{{.ID)}}", "unexpected right paren"),
            ("{{truncate .ID 1x}}", "bad number syntax"),
            ("{{nil}}", "nil is not a command"),
            ("{{\"a}}", "unclosed action"),
            ("{{/* a }}", "unclosed comment"),
            ("{{.ID | }}", "missing value"),
            ("{{\u{7}}}", "unexpected"),
        ] {
            let said = Template::new(template).map(drop).unwrap_err();
            assert!(matches!(&said, Bad::Wrong(_)), "{template}: {said:?}");
            assert!(said.clone().text().contains(want), "{template}: {said:?}");
        }
        let deep = format!("{{{{{}.ID{}}}}}", "(".repeat(50_000), ")".repeat(50_000));
        assert!(Template::new(&deep).is_err());
    }

    #[test]
    fn what_docker_alone_can_do_is_told_apart_from_what_nobody_can() {
        for template in
            ["{{if .ID}}x{{end}}", "{{$x := .ID}}", "{{printf \"%s\" .ID}}", "{{.ContainerLabels}}", "{{.}}"]
        {
            assert!(matches!(Template::new(template), Err(Bad::DockerOnly(_))), "{template}");
        }
        assert!(text("{{index (split .Name \"-\") 9}}").unwrap_err().contains("index out of range: 9"));
        assert!(text("{{upper (.ExtraAttributes nil).NONE}}").unwrap_err().contains("invalid value"));
    }

    mod properties {
        use proptest::prelude::*;

        use super::super::Template;
        use super::text;

        proptest! {
            #[test]
            fn any_text_is_a_template_or_is_none(template in r#"([a-z{}()|."`\\ 0-9-]|\{\{|\}\}|nil|split|\.Name|é){0,40}"#) {
                let read = Template::new(&template).is_ok();
                let rendered = text(&template);
                prop_assert!(read || rendered.is_err());
            }
        }
    }
}
