/// Why a text is not the JSON that was expected, and at which byte of the text.
public enum JSONFailure: Error, Hashable, Sendable {
    /// Something else was expected here.
    case unexpected(offset: Int, expected: String, found: String)
    /// Arrays and objects are nested too deeply.
    case tooDeep(offset: Int, limit: Int)
    /// A string is not UTF-8, or holds half of a surrogate pair.
    case notText(offset: Int)
    /// A number that neither a 64-bit integer nor a double can hold.
    case numberOutOfRange(offset: Int, text: String)
    /// A key occurs twice in an object.
    case duplicateKey(offset: Int, key: String)

    /// The byte of the text at which it went wrong, from 0.
    public var offset: Int {
        switch self {
        case .unexpected(let offset, _, _), .tooDeep(let offset, _), .notText(let offset),
            .numberOutOfRange(let offset, _), .duplicateKey(let offset, _):
            offset
        }
    }
}

extension JSONFailure: CustomStringConvertible {
    /// What was expected and found, without the place.
    public var description: String {
        switch self {
        case .unexpected(_, let expected, let found): "expected \(expected), found \(found)"
        case .tooDeep(_, let limit): "expected at most \(limit) nested arrays and objects, found more"
        case .notText: "expected a UTF-8 string, found bytes or a surrogate escape that are not Unicode text"
        case .numberOutOfRange(_, let text): "expected a number within the range of a double, found \(text)"
        case .duplicateKey(_, let key): "expected distinct keys, found \(JSONText.excerpt(key)) a second time"
        }
    }
}
