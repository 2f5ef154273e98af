import Engine
import Schema

/// The field that names where an example comes from; empty if it has none.
func sourceText(_ metadata: MetadataRecord?) -> String {
    guard case .string(let source)? = metadata?["source"] else { return "" }
    return singleLine(source)
}

/// The text of an example: its `text`, or the first string field that is not its source.
func exampleText(_ metadata: MetadataRecord?) -> String? {
    guard let metadata else { return nil }
    if case .string(let text)? = metadata["text"] { return text }
    for field in metadata.fields where field.name != "source" {
        if case .string(let text) = field.value { return text }
    }
    return nil
}
