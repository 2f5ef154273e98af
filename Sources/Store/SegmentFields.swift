import Format
import Schema

/// A block's metadata turned from records into columns.
struct FieldValues {
    /// Each field's values, one for each row, nil where a row has none.
    private(set) var inOrderOfAppearance: [(name: String, values: [MetadataValue?])] = []

    /// Throws `.metadataField` for a name that is too long or occurs twice in a record, `.metadataTooLarge` when a page would overflow.
    init(_ metadata: [MetadataRecord?], rowCount: Int) throws(StoreError) {
        var places: [String: Int] = [:]
        for (row, record) in metadata.enumerated() {
            for field in record?.fields ?? [] {
                let place: Int
                if let known = places[field.name] {
                    place = known
                } else {
                    guard field.name.utf8.count <= Limits.layerNameBytes else {
                        throw .metadataField(
                            name: String(field.name.prefix(64)), row: row,
                            reason: "the name has \(field.name.utf8.count) bytes, at most \(Limits.layerNameBytes) fit")
                    }
                    place = inOrderOfAppearance.count
                    places[field.name] = place
                    inOrderOfAppearance.append(
                        (field.name, [MetadataValue?](repeating: nil, count: rowCount)))
                }
                guard inOrderOfAppearance[place].values[row] == nil else {
                    throw .metadataField(name: field.name, row: row, reason: "occurs twice in one record")
                }
                inOrderOfAppearance[place].values[row] = field.value
            }
        }
        for (name, values) in inOrderOfAppearance {
            // Tags, padding and offsets come on top.
            let limit = Limits.pageBytes - 5 * (values.count + 8)
            let byteCount = values.reduce(0) { $0 + FieldPage.valueByteCount($1) }
            guard byteCount <= limit else { throw .metadataTooLarge(name: name, byteCount: byteCount, limit: limit) }
        }
    }
}
