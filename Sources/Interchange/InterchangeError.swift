public import Files
import Schema

/// Why a file that came from outside is refused, or a result file cannot be written.
///
/// Every case names the file and the place in it. Offsets of tensors count from the start of the data, as in the header; the other
/// offsets count from the start of the file. Rows count from 0, lines and columns from 1.
public enum InterchangeError: Error, Hashable, Sendable {
    /// The file system refused.
    case file(FileError)

    // MARK: safetensors

    /// Not even the eight bytes of the header's length.
    case fileTooShort(path: String, byteCount: Int)
    case headerTooLong(path: String, byteCount: UInt64)
    case headerPastEnd(path: String, headerByteCount: Int, available: Int)
    case headerNotJSON(path: String, fileOffset: Int, failure: JSONFailure)
    /// A tensor, a metadata key or a key of a tensor occurs twice.
    case duplicateName(path: String, name: String)
    /// `__metadata__` (key nil) is no object, or one of its values is no string.
    case metadataNotString(path: String, key: String?, found: String)
    case tensorMalformed(path: String, tensor: String, expected: String, found: String)
    case unknownElementType(path: String, tensor: String, found: String)
    case offsetsOutOfRange(path: String, tensor: String, offsets: [Int], dataByteCount: Int)
    case shapeOverflow(path: String, tensor: String, shape: [Int])
    case sizeMismatch(
        path: String, tensor: String, elementType: ElementType, shape: [Int], expected: Int, found: Int)
    case tensorsOverlap(path: String, tensor: String, other: String, expectedStart: Int, foundStart: Int)
    case hole(path: String, before: String, byteRange: Range<Int>)
    case trailingBytes(path: String, expected: Int, found: Int)

    // MARK: Factor batch

    case unsupportedVersion(path: String, found: String)
    case noLayers(path: String)
    case unexpectedTensor(path: String, tensor: String)
    case incompleteFactors(path: String, layer: String, present: String, missing: String)
    case factorsAndFull(path: String, layer: String)
    case unsupportedElementType(path: String, tensor: String, found: ElementType)
    case wrongShape(path: String, tensor: String, expected: String, found: [Int])
    case noRows(path: String, tensor: String)
    case rowCountsDiffer(path: String, tensor: String, expected: Int, found: Int, reference: String)
    case ranksDiffer(path: String, layer: String, left: Int, right: Int)
    case elementTypesDiffer(path: String, layer: String, left: ElementType, right: ElementType)
    /// `place` says of what, `quantity` what is counted.
    case limitExceeded(path: String, place: String, quantity: String, limit: Int, found: Int)
    /// The metadata `ids` or `layers` is not a JSON array of strings; the offset counts in the decoded string.
    case listMalformed(path: String, key: String, offset: Int, failure: JSONFailure)
    case layerNotInFile(path: String, layer: String)
    case layerNotListed(path: String, layer: String)
    case duplicateLayer(path: String, layer: String, first: Int, second: Int)
    case identifierCount(path: String, expected: Int, found: Int)
    case emptyIdentifier(path: String, row: Int)
    case duplicateIdentifier(path: String, identifier: String, firstRow: Int, secondRow: Int)
    /// A layer's second moments are incomplete, or belong to no layer of the file.
    case secondMoments(path: String, layer: String, expected: String, found: String)
    /// The metadata `basis` is not a digest.
    case basisMalformed(path: String, found: String)
    case notFinite(path: String, tensor: String, row: Int, identifier: String?, element: [Int], found: String)

    // MARK: User metadata (JSONL)

    case metadataLine(path: String, line: Int, column: Int, failure: JSONFailure)
    case metadataLineTooLong(path: String, line: Int, limit: Int)
    case metadataFieldCount(path: String, line: Int, limit: Int, found: Int)
    case metadataIdentifier(path: String, line: Int, expected: String, found: String)
    case duplicateMetadata(path: String, identifier: String, firstLine: Int, line: Int)
    case metadataRowCount(path: String, expected: Int, found: Int)
    case metadataChanged(path: String, fileOffset: Int)

    // MARK: Configuration of a model

    case configurationNotJSON(path: String, offset: Int, failure: JSONFailure)
    case configurationField(path: String, field: String, expected: String, found: String)

    // MARK: Writing

    case unknownExtension(path: String)
    case noDirectory(path: String, directory: String)
    case targetIsDirectory(path: String)
    case numberTooLarge(path: String, tensor: String, elementType: ElementType, found: Float)
}

extension InterchangeError: CustomStringConvertible {
    /// One line: file, place, expected, found.
    public var description: String {
        switch self {
        case .fileTooShort(let path, let byteCount):
            "\(path) is not a safetensors file: expected at least 8 bytes, found \(byteCount)"
        case .headerTooLong(let path, let byteCount):
            "\(path), byte 0: expected a safetensors header of at most \(Limits.safetensorsHeaderBytes) bytes, "
                + "found a length of \(byteCount) (is it a safetensors file?)"
        case .headerPastEnd(let path, let headerByteCount, let available):
            "\(path) is cut off or not a safetensors file: expected a header of \(headerByteCount) bytes from byte 8, "
                + "found \(available) bytes"
        case .headerNotJSON(let path, let fileOffset, let failure):
            "\(path), header, byte \(fileOffset): \(failure)"
        case .duplicateName(let path, let name):
            "\(path), header: expected distinct names, found \(JSONText.excerpt(name)) twice"
        case .metadataNotString(let path, let key, let found):
            if let key {
                "\(path), __metadata__ \(JSONText.excerpt(key)): expected a string, found \(found)"
            } else {
                "\(path), __metadata__: expected an object of strings, found \(found)"
            }
        case .tensorMalformed(let path, let tensor, let expected, let found):
            "\(path), tensor \(JSONText.excerpt(tensor)): expected \(expected), found \(found)"
        case .unknownElementType(let path, let tensor, let found):
            "\(path), tensor \(JSONText.excerpt(tensor)): expected a dtype of safetensors such as F32, F16 or BF16, "
                + "found \(JSONText.excerpt(found))"
        case .offsetsOutOfRange(let path, let tensor, let offsets, let dataByteCount):
            "\(path), tensor \(JSONText.excerpt(tensor)): expected data_offsets within 0 to \(dataByteCount), "
                + "found \(offsets) (is the file cut off?)"
        case .shapeOverflow(let path, let tensor, let shape):
            "\(path), tensor \(JSONText.excerpt(tensor)): expected a size below 2^63 bytes, "
                + "found shape \(Self.list(shape))"
        case .sizeMismatch(let path, let tensor, let elementType, let shape, let expected, let found):
            "\(path), tensor \(JSONText.excerpt(tensor)): expected \(expected) bytes for \(elementType.rawValue) "
                + "\(Self.list(shape)), found data_offsets over \(found) bytes"
        case .tensorsOverlap(let path, let tensor, let other, let expectedStart, let foundStart):
            "\(path), tensor \(JSONText.excerpt(tensor)): expected data from offset \(expectedStart) on, after "
                + "\(JSONText.excerpt(other)), found it at \(foundStart): the two overlap"
        case .hole(let path, let before, let byteRange):
            "\(path), tensor \(JSONText.excerpt(before)): expected data from offset \(byteRange.lowerBound) on, found it "
                + "at \(byteRange.upperBound): \(byteRange.count) bytes before it belong to no tensor"
        case .trailingBytes(let path, let expected, let found):
            "\(path), end of file: expected \(expected) bytes of data, found \(found): \(found - expected) bytes belong "
                + "to no tensor"
        case .unsupportedVersion(let path, let found):
            "\(path), __metadata__ \"lorif.batch\": expected version \"1\", found \(JSONText.excerpt(found))"
        case .noLayers(let path):
            "\(path): expected tensors <layer>/left and <layer>/right, or <layer>/full, found no tensor"
        case .unexpectedTensor(let path, let tensor):
            "\(path), tensor \(JSONText.excerpt(tensor)): expected a name <layer>/left, <layer>/right or <layer>/full"
        case .incompleteFactors(let path, let layer, let present, let missing):
            "\(path), layer \(JSONText.excerpt(layer)): expected both factors, found \(present) without \(missing)"
        case .factorsAndFull(let path, let layer):
            "\(path), layer \(JSONText.excerpt(layer)): expected either factors or full, found both"
        case .unsupportedElementType(let path, let tensor, let found):
            "\(path), tensor \(JSONText.excerpt(tensor)): expected F32, F16 or BF16, found \(found.rawValue)"
        case .wrongShape(let path, let tensor, let expected, let found):
            "\(path), tensor \(JSONText.excerpt(tensor)): expected shape \(expected), found \(Self.list(found))"
        case .noRows(let path, let tensor):
            "\(path), tensor \(JSONText.excerpt(tensor)): expected at least one row, found none"
        case .rowCountsDiffer(let path, let tensor, let expected, let found, let reference):
            "\(path), tensor \(JSONText.excerpt(tensor)): expected \(expected) rows as in \(JSONText.excerpt(reference)), "
                + "found \(found)"
        case .ranksDiffer(let path, let layer, let left, let right):
            "\(path), layer \(JSONText.excerpt(layer)): expected one rank, found \(left) in left and \(right) in right"
        case .elementTypesDiffer(let path, let layer, let left, let right):
            "\(path), layer \(JSONText.excerpt(layer)): expected one dtype, found \(left.rawValue) in left and "
                + "\(right.rawValue) in right"
        case .limitExceeded(let path, let place, let quantity, let limit, let found):
            "\(path), \(place): expected at most \(limit) \(quantity), found \(found)"
        case .listMalformed(let path, let key, let offset, let failure):
            "\(path), __metadata__ \"\(key)\", byte \(offset) of its text: \(failure) (it must be a JSON array of strings)"
        case .layerNotInFile(let path, let layer):
            "\(path), __metadata__ \"layers\": expected layers that have tensors, found \(JSONText.excerpt(layer)) "
                + "without any"
        case .layerNotListed(let path, let layer):
            "\(path), __metadata__ \"layers\": expected every layer of the file, found no \(JSONText.excerpt(layer))"
        case .duplicateLayer(let path, let layer, let first, let second):
            "\(path), __metadata__ \"layers\": expected distinct names, found \(JSONText.excerpt(layer)) at places "
                + "\(first) and \(second)"
        case .identifierCount(let path, let expected, let found):
            "\(path), __metadata__ \"ids\": expected \(expected) ids, one per row, found \(found)"
        case .emptyIdentifier(let path, let row):
            "\(path), __metadata__ \"ids\", row \(row): expected an id of at least one character, found \"\""
        case .duplicateIdentifier(let path, let identifier, let firstRow, let secondRow):
            "\(path), __metadata__ \"ids\": expected distinct ids, found \(JSONText.excerpt(identifier)) at rows "
                + "\(firstRow) and \(secondRow)"
        case .secondMoments(let path, let layer, let expected, let found):
            "\(path), second moments of layer \(JSONText.excerpt(layer)): expected \(expected), found \(found)"
        case .basisMalformed(let path, let found):
            "\(path), __metadata__ \"basis\": expected the 32 hexadecimal digits of a basis, found "
                + "\(JSONText.excerpt(found))"
        case .notFinite(let path, let tensor, let row, let identifier, let element, let found):
            "\(path), tensor \(JSONText.excerpt(tensor)), row \(row)"
                + (identifier.map { " (id \(JSONText.excerpt($0)))" } ?? "")
                + ", element \(Self.list(element)): expected a finite number, found \(found)"
        case .file(let error): error.description
        case .metadataLine(let path, let line, let column, let failure):
            "\(path), line \(line), column \(column): \(failure)"
        case .metadataLineTooLong(let path, let line, let limit):
            "\(path), line \(line): expected an object of at most \(limit) bytes, found a longer line"
        case .metadataFieldCount(let path, let line, let limit, let found):
            "\(path), line \(line): expected at most \(limit) fields, found \(found)"
        case .metadataIdentifier(let path, let line, let expected, let found):
            "\(path), line \(line), \"id\": expected \(expected), found \(found)"
        case .duplicateMetadata(let path, let identifier, let firstLine, let line):
            "\(path), line \(line): expected one object per example, found id \(JSONText.excerpt(identifier)) again after "
                + "line \(firstLine)"
        case .metadataRowCount(let path, let expected, let found):
            "\(path): expected \(expected) objects, one per row, because the batch has no ids to match, found \(found)"
        case .metadataChanged(let path, let fileOffset):
            "\(path), byte \(fileOffset): expected the object that was there before, found something else: the file has "
                + "changed while it was in use"
        case .configurationNotJSON(let path, let offset, let failure):
            "\(path), byte \(offset): \(failure) (is it the config.json of a Hugging Face model?)"
        case .configurationField(let path, let field, let expected, let found):
            "\(path), field '\(field)': expected \(expected), found \(found)"
        case .unknownExtension(let path):
            "\(path): expected a name that ends in .safetensors or .npy"
        case .noDirectory(let path, let directory):
            "\(path) cannot be written: there is no folder \(directory); make it with 'mkdir -p \(directory)'"
        case .targetIsDirectory(let path):
            "\(path) cannot be written: it is a directory"
        case .numberTooLarge(let path, let tensor, let elementType, let found):
            "\(path), tensor \(JSONText.excerpt(tensor)): expected numbers that \(elementType.rawValue) can hold, found "
                + "\(found)"
        }
    }

    /// Numbers as JSON writes them.
    private static func list(_ numbers: [Int]) -> String {
        "[" + numbers.map(String.init).joined(separator: ", ") + "]"
    }
}

/// Runs code that throws several kinds of errors and turns them into this module's.
func withInterchangeErrors<Result: ~Copyable>(
    _ body: () throws -> Result,
    locatingJSON locate: (JSONFailure) -> InterchangeError = { preconditionFailure("no JSON is read here: \($0)") }
) throws(InterchangeError) -> Result {
    do {
        return try body()
    } catch let error as InterchangeError {
        throw error
    } catch let error as FileError {
        throw .file(error)
    } catch let failure as JSONFailure {
        throw locate(failure)
    } catch {
        preconditionFailure("not an error of reading or writing: \(error)")
    }
}
