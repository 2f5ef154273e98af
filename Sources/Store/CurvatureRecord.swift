public import Checksum
import Format

/// How a curvature was fitted, and on what.
public struct CurvatureDescription: Hashable, Sendable {
    /// Which layers share an eigenbasis, in words of the command line (for example `layer` or `global`).
    public var scope: String
    /// How the eigenpairs were found.
    public var algorithm: String
    /// The largest number of eigenpairs kept of a group.
    public var rank: Int
    /// The part of the trace that the kept eigenvalues hold, 0 to 1.
    public var capturedEnergy: Double
    /// The generation of the store that it was fitted on.
    public var fittedGeneration: UInt64
    /// Live rows at that time.
    public var fittedRowCount: Int
    /// `Snapshot.rowDigest` at that time: equal exactly if the same rows are live.
    public var fittedRowDigest: Digest
    /// JSON text: options, versions, whatever explains the fit.
    public var provenance: String

    /// A description of known parts.
    public init(
        scope: String, algorithm: String, rank: Int, capturedEnergy: Double, fittedGeneration: UInt64,
        fittedRowCount: Int, fittedRowDigest: Digest, provenance: String = "{}"
    ) {
        self.scope = scope
        self.algorithm = algorithm
        self.rank = rank
        self.capturedEnergy = capturedEnergy
        self.fittedGeneration = fittedGeneration
        self.fittedRowCount = fittedRowCount
        self.fittedRowDigest = fittedRowDigest
        self.provenance = provenance
    }

    func write(to writer: inout ByteWriter) {
        writer.write(UInt64(rank))
        writer.write(capturedEnergy)
        writer.write(fittedGeneration)
        writer.write(UInt64(fittedRowCount))
        writer.write(fittedRowDigest)
        writer.write(string: scope)
        writer.write(string: algorithm)
        writer.write(string: provenance)
    }

    init(from reader: inout CatalogReader) throws(CatalogCodingError) {
        rank = try reader.readCount()
        capturedEnergy = try reader.readDouble()
        fittedGeneration = try reader.read()
        fittedRowCount = try reader.readCount()
        fittedRowDigest = try reader.readDigest()
        scope = try reader.readString()
        algorithm = try reader.readString()
        provenance = try reader.readString()
    }
}

/// A fitted curvature of a store, as the catalog knows it.
public struct CurvatureRecord: Hashable, Sendable {
    /// What the file must be; its footer digest is the curvature's name.
    public let identity: PagedFileIdentity
    /// How it was fitted.
    public let description: CurvatureDescription
    /// The generation whose commit added it.
    public let addedGeneration: UInt64

    /// The curvature's name.
    public var digest: Digest { identity.footerDigest }

    /// The name of its file in curvature/.
    public var fileName: String { CurvatureRecord.fileName(digest) }

    static func fileName(_ digest: Digest) -> String { digest.description + ".curvature" }

    var payload: [UInt8] {
        var writer = ByteWriter()
        writer.write(identity)
        writer.write(addedGeneration)
        description.write(to: &writer)
        return writer.bytes
    }

    init(identity: PagedFileIdentity, description: CurvatureDescription, addedGeneration: UInt64) {
        self.identity = identity
        self.description = description
        self.addedGeneration = addedGeneration
    }

    init(digest: Digest, payload: [UInt8]) throws(CatalogCodingError) {
        var reader = CatalogReader(payload)
        identity = try reader.readIdentity()
        addedGeneration = try reader.read()
        description = try CurvatureDescription(from: &reader)
        try reader.expectEnd()
        guard identity.footerDigest == digest else {
            throw .rule(expected: "digest \(digest)", found: "\(identity.footerDigest)")
        }
    }
}
