import Checksum
import Files
import Schema

/// What a factor batch's header says: the rules of `Formats/factor-batch.md`, applied to tensors and metadata.
struct BatchLayout {
    /// One layer and where its numbers are.
    struct Layer {
        let layer: BatchLayer
        /// `left`, or `full`.
        let first: TensorEntry
        /// `right`.
        let second: TensorEntry?
        /// `second_moment_left` and `second_moment_right`.
        let moments: Moments?
    }

    /// The second moments of a layer, as the trainer found them.
    struct Moments {
        let left: TensorEntry
        let right: TensorEntry
    }

    static let supportedVersion = "1"

    let rowCount: Int
    /// In vectorisation order.
    let layers: [Layer]
    let identifiers: [String]?
    /// For finding rows by id, when there are ids.
    let index: IdentifierIndex?
    /// The whitening basis that the rows are in already.
    let basis: Digest?
    /// All metadata but `lorif.batch`, `ids`, `layers` and `basis`.
    let provenance: [(String, String)]

    init(_ file: SafetensorsFile) throws(InterchangeError) {
        let path = file.file.path
        if let version = file.metadataValue("lorif.batch"), version != Self.supportedVersion {
            throw .unsupportedVersion(path: path, found: version)
        }
        let named = try Self.layersByName(file)
        let rows = file.tensors.filter { !Self.isMoment($0) }
        guard let reference = rows.first else { throw .noLayers(path: path) }
        let order = try Self.order(of: named, file: file)
        layers = order.compactMap { named[$0] }
        rowCount = reference.shape[0]
        for tensor in rows where tensor.shape[0] != rowCount {
            throw .rowCountsDiffer(
                path: path, tensor: tensor.name, expected: rowCount, found: tensor.shape[0],
                reference: reference.name)
        }
        identifiers = try Self.identifiers(file, rowCount: rowCount)
        if let identifiers {
            do {
                index = try IdentifierIndex(identifiers)
            } catch {
                throw .duplicateIdentifier(
                    path: path, identifier: identifiers[error.firstRow], firstRow: error.firstRow,
                    secondRow: error.secondRow)
            }
        } else {
            index = nil
        }
        basis = try file.metadataValue("basis").map { (text) throws(InterchangeError) in
            guard let digest = Digest(text) else { throw .basisMalformed(path: path, found: text) }
            return digest
        }
        provenance = file.metadata.filter { !["lorif.batch", "ids", "layers", "basis"].contains($0.key) }
            .map { ($0.key, $0.value) }
    }

    // MARK: Layers

    private struct Parts {
        var left: TensorEntry?
        var right: TensorEntry?
        var full: TensorEntry?
        var leftMoment: TensorEntry?
        var rightMoment: TensorEntry?
    }

    private static func isMoment(_ tensor: TensorEntry) -> Bool {
        tensor.name.hasSuffix("/second_moment_left") || tensor.name.hasSuffix("/second_moment_right")
    }

    private static func layersByName(_ file: SafetensorsFile) throws(InterchangeError) -> [String: Layer] {
        let path = file.file.path
        var parts: [String: Parts] = [:]
        for tensor in file.tensors {
            guard let slash = tensor.name.utf8.lastIndex(of: UInt8(ascii: "/")), slash > tensor.name.startIndex else {
                throw .unexpectedTensor(path: path, tensor: tensor.name)
            }
            let layer = String(tensor.name[..<slash])
            switch tensor.name[tensor.name.utf8.index(after: slash)...] {
            case "left": parts[layer, default: Parts()].left = tensor
            case "right": parts[layer, default: Parts()].right = tensor
            case "full": parts[layer, default: Parts()].full = tensor
            case "second_moment_left": parts[layer, default: Parts()].leftMoment = tensor
            case "second_moment_right": parts[layer, default: Parts()].rightMoment = tensor
            default: throw .unexpectedTensor(path: path, tensor: tensor.name)
            }
            try check(tensor, path: path)
            try checkLimit(
                layer.utf8.count, Limits.layerNameBytes, "bytes of the layer's name", place(tensor), path)
        }
        try checkLimit(parts.count, Limits.layerCount, "layers", "header", path)
        var layers: [String: Layer] = [:]
        // In a fixed order, so that a file with several faults always gives the same message.
        for name in parts.keys.sorted(by: naturallyPrecedes) {
            layers[name] = try parts[name].map { (parts) throws(InterchangeError) in
                try layer(named: name, parts, path: path)
            }
        }
        return layers
    }

    private static func check(_ tensor: TensorEntry, path: String) throws(InterchangeError) {
        if isMoment(tensor) { return try checkMoment(tensor, path: path) }
        guard [.f32, .f16, .bf16].contains(tensor.elementType) else {
            throw .unsupportedElementType(path: path, tensor: tensor.name, found: tensor.elementType)
        }
        let kind = tensor.name.hasSuffix("/full") ? "[n, d1, d2]" : "[n, d, c]"
        guard tensor.shape.count == 3 else {
            throw .wrongShape(path: path, tensor: tensor.name, expected: kind, found: tensor.shape)
        }
        guard tensor.shape[0] > 0 else { throw .noRows(path: path, tensor: tensor.name) }
        guard tensor.shape[1] > 0, tensor.shape[2] > 0 else {
            throw .wrongShape(path: path, tensor: tensor.name, expected: kind + " without zeros", found: tensor.shape)
        }
        try checkLimit(tensor.shape[0], Limits.batchRowCount, "rows", place(tensor), path)
        try checkLimit(tensor.shape[1], Limits.dimension, "as dimension", place(tensor), path)
    }

    private static func checkMoment(_ tensor: TensorEntry, path: String) throws(InterchangeError) {
        guard [.f32, .f64].contains(tensor.elementType) else {
            throw .tensorMalformed(
                path: path, tensor: tensor.name, expected: "F32 or F64", found: tensor.elementType.rawValue)
        }
        guard tensor.shape.count == 2, tensor.shape[0] == tensor.shape[1], tensor.shape[0] > 0 else {
            throw .wrongShape(path: path, tensor: tensor.name, expected: "[d, d]", found: tensor.shape)
        }
    }

    /// Both moments of a layer, of its dimensions; nil when it has none.
    private static func moments(
        _ parts: Parts, d1: Int, d2: Int, layer: String, path: String
    ) throws(InterchangeError) -> Moments? {
        guard parts.leftMoment != nil || parts.rightMoment != nil else { return nil }
        guard let left = parts.leftMoment, let right = parts.rightMoment else {
            throw .secondMoments(path: path, layer: layer, expected: "left and right", found: "one of them")
        }
        guard left.shape[0] == d1, right.shape[0] == d2 else {
            throw .secondMoments(
                path: path, layer: layer, expected: "orders \(d1) and \(d2)",
                found: "\(left.shape[0]) and \(right.shape[0])")
        }
        return Moments(left: left, right: right)
    }

    private static func layer(named name: String, _ parts: Parts, path: String) throws(InterchangeError) -> Layer {
        guard parts.full != nil || parts.left != nil || parts.right != nil else {
            throw .secondMoments(
                path: path, layer: name, expected: "gradients of the layer in the same file", found: "none")
        }
        if let full = parts.full {
            guard parts.left == nil, parts.right == nil else { throw .factorsAndFull(path: path, layer: name) }
            try checkLimit(full.shape[2], Limits.dimension, "as dimension", place(full), path)
            try checkGradientLength(full.shape[1], full.shape[2], layer: name, path: path)
            let layer = BatchLayer(
                name: name, inputDimension: full.shape[1], outputDimension: full.shape[2], form: .full,
                elementType: full.elementType)
            return Layer(
                layer: layer, first: full, second: nil,
                moments: try moments(parts, d1: full.shape[1], d2: full.shape[2], layer: name, path: path))
        }
        guard let left = parts.left else {
            throw .incompleteFactors(path: path, layer: name, present: "right", missing: "left")
        }
        guard let right = parts.right else {
            throw .incompleteFactors(path: path, layer: name, present: "left", missing: "right")
        }
        guard left.shape[2] == right.shape[2] else {
            throw .ranksDiffer(path: path, layer: name, left: left.shape[2], right: right.shape[2])
        }
        guard left.elementType == right.elementType else {
            throw .elementTypesDiffer(path: path, layer: name, left: left.elementType, right: right.elementType)
        }
        try checkLimit(left.shape[2], Limits.rank, "as rank", place(left), path)
        try checkGradientLength(left.shape[1], right.shape[1], layer: name, path: path)
        let layer = BatchLayer(
            name: name, inputDimension: left.shape[1], outputDimension: right.shape[1],
            form: .factors(rank: left.shape[2]), elementType: left.elementType)
        return Layer(
            layer: layer, first: left, second: right,
            moments: try moments(parts, d1: left.shape[1], d2: right.shape[1], layer: name, path: path))
    }

    /// d1 and d2 are below 2^21 by now, so that the product cannot overflow.
    private static func checkGradientLength(
        _ d1: Int, _ d2: Int, layer: String, path: String
    ) throws(InterchangeError) {
        try checkLimit(
            d1 * d2, Limits.gradientLength, "as d1 · d2", "layer \(JSONText.excerpt(layer))", path)
    }

    private static func checkLimit(
        _ found: Int, _ limit: Int, _ quantity: String, _ place: String, _ path: String
    ) throws(InterchangeError) {
        guard found <= limit else {
            throw .limitExceeded(path: path, place: place, quantity: quantity, limit: limit, found: found)
        }
    }

    private static func place(_ tensor: TensorEntry) -> String { "tensor \(JSONText.excerpt(tensor.name))" }

    private static func order(
        of layers: [String: Layer], file: SafetensorsFile
    ) throws(InterchangeError) -> [String] {
        let path = file.file.path
        guard let listed = try list("layers", in: file) else { return layers.keys.sorted(by: naturallyPrecedes) }
        var places: [String: Int] = [:]
        for (place, name) in listed.enumerated() {
            guard layers[name] != nil else { throw .layerNotInFile(path: path, layer: name) }
            if let first = places.updateValue(place, forKey: name) {
                throw .duplicateLayer(path: path, layer: name, first: first, second: place)
            }
        }
        if let missing = layers.keys.sorted(by: naturallyPrecedes).first(where: { places[$0] == nil }) {
            throw .layerNotListed(path: path, layer: missing)
        }
        return listed
    }

    // MARK: Metadata

    private static func identifiers(_ file: SafetensorsFile, rowCount: Int) throws(InterchangeError) -> [String]? {
        let path = file.file.path
        guard let identifiers = try list("ids", in: file) else { return nil }
        guard identifiers.count == rowCount else {
            throw .identifierCount(path: path, expected: rowCount, found: identifiers.count)
        }
        for (row, identifier) in identifiers.enumerated() {
            guard !identifier.isEmpty else { throw .emptyIdentifier(path: path, row: row) }
            try checkLimit(
                identifier.utf8.count, Limits.identifierBytes, "bytes of an id", "__metadata__ \"ids\", row \(row)",
                path)
        }
        return identifiers
    }

    /// A metadata string that holds a JSON array of strings.
    private static func list(_ key: String, in file: SafetensorsFile) throws(InterchangeError) -> [String]? {
        guard let text = file.metadataValue(key) else { return nil }
        do {
            return try JSONText.strings(text)
        } catch {
            throw .listMalformed(path: file.file.path, key: key, offset: error.offset, failure: error)
        }
    }
}
