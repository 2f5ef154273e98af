public import Schema

/// A condition on an example's id and user metadata, as `--where` takes it.
///
/// Three-valued logic as in SQL: a comparison with an absent or null field, or between a text and a number, is unknown, and a
/// row passes only when the whole condition is true.
public indirect enum RowFilter: Hashable, Sendable {
    case compare(field: String, comparison: Comparison, literal: MetadataValue)
    /// The field equals one of the literals.
    case isOneOf(field: String, literals: [MetadataValue])
    /// The field is a text that matches a pattern: `%` any run of characters, `_` any one.
    case isLike(field: String, pattern: String)
    case isNull(field: String)
    case not(RowFilter)
    case and(RowFilter, RowFilter)
    case or(RowFilter, RowFilter)

    /// =, !=, <, <=, >, >=.
    public enum Comparison: String, Hashable, Sendable {
        case equal = "="
        case notEqual = "!="
        case less = "<"
        case lessOrEqual = "<="
        case greater = ">"
        case greaterOrEqual = ">="
    }

    /// The field that stands for the example's id.
    public static let identifierField = "id"

    /// Every field that the condition names, `id` included.
    public var fieldNames: Set<String> {
        switch self {
        case .compare(let field, _, _), .isOneOf(let field, _), .isLike(let field, _), .isNull(let field): [field]
        case .not(let inner): inner.fieldNames
        case .and(let a, let b), .or(let a, let b): a.fieldNames.union(b.fieldNames)
        }
    }

    /// Whether an example passes.
    public func passes(identifier: String, metadata: MetadataRecord?) -> Bool {
        evaluate { name in
            name == Self.identifierField ? .string(identifier) : metadata?[name] ?? .null
        } == true
    }

    /// true, false, or nil for unknown.
    private func evaluate(_ value: (String) -> MetadataValue) -> Bool? {
        switch self {
        case .compare(let field, let comparison, let literal):
            return Self.compare(value(field), literal, comparison)
        case .isOneOf(let field, let literals):
            let candidate = value(field)
            if case .null = candidate { return nil }
            return literals.contains { Self.compare(candidate, $0, .equal) == true }
        case .isLike(let field, let pattern):
            guard case .string(let text) = value(field) else { return nil }
            return Self.matches(Array(text), Array(pattern))
        case .isNull(let field):
            if case .null = value(field) { return true }
            return false
        case .not(let inner):
            return inner.evaluate(value).map { !$0 }
        case .and(let a, let b):
            let left = a.evaluate(value)
            if left == false { return false }
            let right = b.evaluate(value)
            return right == false ? false : (left == nil || right == nil ? nil : true)
        case .or(let a, let b):
            let left = a.evaluate(value)
            if left == true { return true }
            let right = b.evaluate(value)
            return right == true ? true : (left == nil || right == nil ? nil : false)
        }
    }

    private static func compare(_ a: MetadataValue, _ b: MetadataValue, _ comparison: Comparison) -> Bool? {
        switch (a, b) {
        case (.string(let x), .string(let y)):
            // UTF-8 byte order, as ids and results are ordered.
            let equal = x == y
            return holds(
                comparison, less: !equal && x.utf8.lexicographicallyPrecedes(y.utf8), equal: equal)
        case (.boolean(let x), .boolean(let y)):
            return holds(comparison, less: !x && y, equal: x == y)
        case (.integer(let x), .integer(let y)):
            return holds(comparison, less: x < y, equal: x == y)
        case (.integer(let x), .number(let y)):
            return holds(comparison, less: Double(x) < y, equal: Double(x) == y)
        case (.number(let x), .integer(let y)):
            return holds(comparison, less: x < Double(y), equal: x == Double(y))
        case (.number(let x), .number(let y)):
            return holds(comparison, less: x < y, equal: x == y)
        default:
            return nil
        }
    }

    private static func holds(_ comparison: Comparison, less: Bool, equal: Bool) -> Bool {
        switch comparison {
        case .equal: equal
        case .notEqual: !equal
        case .less: less
        case .lessOrEqual: less || equal
        case .greater: !less && !equal
        case .greaterOrEqual: !less
        }
    }

    /// Wildcard matching by backtracking to the last `%` only: O(text · pattern).
    private static func matches(_ text: [Character], _ pattern: [Character]) -> Bool {
        var (t, p) = (0, 0)
        var restart: (text: Int, pattern: Int)?
        while t < text.count {
            if p < pattern.count, pattern[p] == "%" {
                restart = (t, p + 1)
                p += 1
            } else if p < pattern.count, pattern[p] == "_" || pattern[p] == text[t] {
                t += 1
                p += 1
            } else if let last = restart {
                restart = (last.text + 1, last.pattern)
                (t, p) = (last.text + 1, last.pattern)
            } else {
                return false
            }
        }
        return pattern[p...].allSatisfy { $0 == "%" }
    }
}
