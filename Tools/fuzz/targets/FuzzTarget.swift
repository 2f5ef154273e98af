@testable import Engine
@testable import Format
@testable import Interchange
import Schema
@testable import Store
import Zstd

/// Everything of `lorif` that reads bytes which somebody else may have written.
enum FuzzTarget: String, CaseIterable {
    /// A segment file as it is.
    case segment
    /// The same after its first 4096 bytes, with every checksum made right.
    case sealedSegment = "sealed-segment"
    case sealedCurvature = "sealed-curvature"
    case sealedBasis = "sealed-basis"
    case sealedCoordinates = "sealed-coordinates"
    /// A byte for the kind, two for the number of rows, and the payload of a page.
    case page
    case schema
    /// Four bytes for the length that must come out, and a zstd frame.
    case zstd
    /// A byte for the kind of a catalog's record, and its payload.
    case catalogRecord = "catalog-record"
    /// The data file of an LMDB environment.
    case catalogFile = "catalog-file"
    /// The file that makes a folder a store.
    case identity
    case safetensors
    /// User metadata beside a batch.
    case metadata
    case json
    case filter = "where"
    /// The measured rates of a machine.
    case machine
    /// What a model is made of, as Hugging Face has it.
    case modelConfig = "model-config"

    /// Reads the input to its end, as the program would.
    func run(_ bytes: [UInt8]) {
        switch self {
        case .segment: withFile(bytes) { readSegment($0) }
        case .sealedSegment: withFile(sealed(bytes, magic: .segment)) { readSegment($0) }
        case .sealedCurvature: withFile(sealed(bytes, magic: .curvature)) { readCurvature($0) }
        case .sealedBasis: withFile(sealed(bytes, magic: .basis)) { _ = try? BasisFile.read($0) }
        case .sealedCoordinates: withFile(sealed(bytes, magic: .coordinates)) { readCoordinates($0) }
        case .page: readPage(bytes)
        case .schema:
            if let schema = try? StoreSchema(decoding: bytes) { expect(schema.encoded() == bytes, "a schema") }
        case .zstd: decompress(bytes)
        case .catalogRecord: readCatalogRecord(bytes)
        case .catalogFile: readCatalog(bytes)
        case .identity:
            if let identity = try? IdentityFile.decode(bytes, path: "identity") { _ = IdentityFile.encode(identity) }
        case .safetensors: withFile(bytes) { readBatch($0) }
        case .metadata: withFile(bytes) { readMetadata($0) }
        case .json: readJSON(bytes)
        case .filter: readFilter(bytes)
        case .machine: withFile(bytes) { _ = MachineModel.load(fromFile: $0) }
        case .modelConfig: withFile(bytes) { _ = try? ModelConfiguration(path: $0).modelLayers() }
        }
    }
}

/// Aborts unless what was read is what would be written.
func expect(_ condition: Bool, _ what: String) {
    if !condition { fail("\(what) was accepted that would be written otherwise") }
}
