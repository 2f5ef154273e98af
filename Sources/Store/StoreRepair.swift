import Checksum
import Files
import Format
import Glibc
import Schema
import SystemPackage

/// Rows that a repair could not save.
public struct LostRows: Hashable, Sendable {
    /// The file that held them, by the name it has in segments/.
    public let file: String
    /// Which rows of that file; nil when not even their number is known.
    public let rows: Range<Int>?
    /// The ids of those that were live, nil when they cannot be read.
    public let identifiers: [String]?
    /// What is wrong there.
    public let reason: String
}

/// Values of a metadata field that a repair could not save; their rows it did.
public struct LostField: Hashable, Sendable {
    /// The file that held them.
    public let file: String
    /// The field's name.
    public let field: String
    /// Which rows of that file.
    public let rows: Range<Int>
    /// The ids of those that were live, whether they had a value or not.
    public let identifiers: [String]
}

/// What a repair did.
public struct RepairReport: Sendable {
    /// What was wrong with the catalog; nil if it was sound, and everything in it has been kept.
    public internal(set) var catalogDamage: String?
    /// Everything else that was found, in words.
    public internal(set) var damages: [String] = []
    /// Rows that could not be saved.
    public internal(set) var lostRows: [LostRows] = []
    /// Metadata that could not be saved, of rows that could.
    public internal(set) var lostFields: [LostField] = []
    /// Files of an interrupted command that nothing names, removed.
    public internal(set) var removedPaths: [String] = []
    /// Where damaged originals are now.
    public internal(set) var quarantinedPaths: [String] = []
    /// What is wrong with the basis of a whitened store, if it could not be put back: the rows are whole, but raw gradients cannot
    /// be compared with them.
    public internal(set) var basisDamage: String?
    /// Segment files written anew from what was whole in a damaged one.
    public internal(set) var salvagedFiles: [String] = []
    /// Rows of a rebuilt catalog that are taken for deleted because a later segment has the same id.
    public internal(set) var supersededRowCount = 0
    /// Named snapshots that were given up because a file of theirs is damaged.
    public internal(set) var droppedSnapshots: [String] = []
    /// Live rows now.
    public internal(set) var rowCount = 0
    /// The generation now.
    public internal(set) var generation: UInt64 = 0

    /// Whether anything was wrong.
    public var isChanged: Bool { catalogDamage != nil || !damages.isEmpty }
}

/// Makes a damaged store whole again, losing nothing that can be read and naming everything that cannot.
///
/// Every byte is verified. A damaged segment is written anew under the same number from the blocks whose factors and ids are whole (norms
/// can be made anew, a metadata field done without); its original, and whatever else is damaged, goes to `quarantine/`. A catalog that cannot be read is rebuilt from the footers of the files: which rows
/// were deleted, which batch files were taken in and the named snapshots are not in those, and are lost; of rows with equal ids
/// the one in the last segment lives. The new catalog is built beside the old one and then renamed. Interrupted, it can be run again.
public struct StoreRepair {
    let directory: StoreDirectory
    private let lock: FileLock
    var report = RepairReport()

    /// Repairs the store at `path`; `progress` gets the name of each file that is begun and may throw to stop.
    ///
    /// `basis`, a whole copy of the store's basis, replaces one that is missing or damaged.
    public static func run(
        at path: String, basis: StoredBasis? = nil, progress: (String) throws -> Void = { _ in }
    ) throws -> RepairReport {
        var repair = try StoreRepair(path: path)
        try repair.run(basis: basis, progress: progress)
        return repair.report
    }

    private init(path: String) throws(StoreError) {
        let directory = StoreDirectory(path: StoreDirectory.trimmed(path))
        let status = try wrapping { () throws(FileError) in try fileStatus(directory.path) }
        guard let status else { throw .storeMissing(path: path) }
        guard status.kind == .directory else { throw .notADirectory(path: path) }
        let segments = try wrapping { () throws(FileError) in try fileStatus(directory.segmentsPath) }
        let identity = try wrapping { () throws(FileError) in try fileStatus(directory.identityPath) }
        guard segments?.kind == .directory || identity != nil else { throw .notAStore(path: path) }
        guard isWritable(directory.path) else { throw .storeNotWritable(path: path) }
        let lock = try wrapping { () throws(FileError) in try FileLock.acquire(path: directory.lockPath) }
        guard let lock else { throw .locked(lockPath: directory.lockPath) }
        self.directory = directory
        self.lock = lock
        try wrapping { () throws(FileError) in try Self.settleInterruptedReplacement(in: directory) }
        for sub in [directory.segmentsPath, directory.curvaturePath, directory.temporaryPath] {
            let found = try wrapping { () throws(FileError) in try fileStatus(sub) }
            if found == nil { try wrapping { () throws(FileError) in try createDirectory(sub) } }
        }
        for name in try wrapping({ () throws(FileError) in try fileNames(inDirectory: directory.temporaryPath) }) {
            unlink(directory.temporaryPath + "/" + name)
        }
    }

    private mutating func run(basis: StoredBasis?, progress: (String) throws -> Void) throws {
        let identity = readIdentity()
        var contents: CatalogContents
        if let known = try readCatalog(identity) {
            contents = known
            try mendSegments(of: &contents, progress: progress)
            try mendSnapshots(of: &contents)
        } else {
            contents = try rebuiltContents(identity: identity ?? .random(), progress: progress)
        }
        try mendCurvatures(of: &contents)
        try mendBasis(contents.schema.basis, from: basis)
        report.rowCount = contents.rowCount - contents.deletedCount
        report.generation = contents.state.generation
        if identity == nil { try writeIdentity(contents.state.storeIdentity) }
        guard report.isChanged else {
            report.removedPaths = try Recovery.sweep(directory, contents: contents)
            return
        }
        if report.catalogDamage != nil || !report.damages.isEmpty {
            contents.state.generation += 1
            report.generation = contents.state.generation
            try replaceCatalog(contents)
        }
        _ = try Snapshot.open(at: directory.path)
    }

    // MARK: - Identity and catalog

    private mutating func readIdentity() -> StoreIdentity? {
        do {
            return try StoreDirectory.open(directory.path).1
        } catch {
            report.damages.append("\(error)")
            return nil
        }
    }

    /// nil, and the reason in the report, if the catalog is damaged.
    private mutating func readCatalog(_ identity: StoreIdentity?) throws(StoreError) -> CatalogContents? {
        do {
            return try Catalog.open(at: directory.catalogPath).load(expecting: identity)
        } catch {
            guard error.category == .damaged else { throw error }
            report.catalogDamage = error.description
            return nil
        }
    }

    private mutating func writeIdentity(_ identity: StoreIdentity) throws {
        if try fileStatus(directory.identityPath) != nil { try quarantine(directory.identityPath) }
        var file = try DurableFile(temporaryPath: directory.temporaryPath + "/lorif.store")
        try file.append(IdentityFile.encode(identity).span.bytes)
        try file.seal(as: directory.identityPath)
    }

    /// Ends what a killed repair has begun: a new catalog takes the place that it was made for if the old one has left it, and is
    /// otherwise not known to be whole.
    private static func settleInterruptedReplacement(in directory: StoreDirectory) throws(FileError) {
        let path = directory.repairedCatalogPath
        guard try fileStatus(path) != nil else { return }
        if try fileStatus(directory.catalogPath) == nil { return try moveDirectory(path, to: directory.catalogPath) }
        for name in try fileNames(inDirectory: path) { try removeFile(path + "/" + name) }
        try removeDirectory(path)
    }

    /// Builds the catalog beside the old one and swaps them. Between the two renames the store has none; the new one is durable by
    /// then, and the next repair puts it in place (`settleInterruptedReplacement`).
    private mutating func replaceCatalog(_ contents: CatalogContents) throws {
        let path = directory.repairedCatalogPath
        try createDirectory(path)
        _ = try Catalog.create(at: path, contents: contents)
        try synchronizeDirectory(path)
        try synchronizeDirectory(directory.path)
        if try fileStatus(directory.catalogPath) != nil { try quarantine(directory.catalogPath) }
        try moveDirectory(path, to: directory.catalogPath)
    }

    /// Moves a file or directory to quarantine/, under a name that is free.
    mutating func quarantine(_ path: String) throws {
        let target = try quarantineName(for: path)
        try moveDirectory(path, to: target)
        report.quarantinedPaths.append(target)
    }

    /// Puts another file in the place of one that goes to quarantine/: the name in the store is always that of one of them.
    private mutating func quarantine(_ path: String, replacingBy newPath: String) throws {
        let target = try quarantineName(for: path)
        // A killed repair may have come this far.
        if try fileStatus(target)?.identity != fileStatus(path)?.identity {
            try linkOrCopyFile(path, temporaryPath: newPath + ".original", as: target)
        }
        try replaceFile(path, by: newPath)
        report.quarantinedPaths.append(target)
    }

    /// A name in quarantine/ that is free, or that of this very file.
    private func quarantineName(for path: String) throws -> String {
        let quarantinePath = directory.quarantinePath
        if try fileStatus(quarantinePath) == nil {
            try createDirectory(quarantinePath)
            try synchronizeDirectory(directory.path)
        }
        let name = path.split(separator: "/").last.map(String.init) ?? "file"
        let identity = try fileStatus(path)?.identity
        var target = quarantinePath + "/" + name
        var number = 1
        while let found = try fileStatus(target), found.identity != identity {
            number += 1
            target = quarantinePath + "/" + name + ".\(number)"
        }
        return target
    }

    // MARK: - With a sound catalog

    private mutating func mendSegments(of contents: inout CatalogContents, progress: (String) throws -> Void) throws {
        var segments: [SegmentInfo] = []
        for segment in contents.segments {
            try progress(segment.fileName)
            let path = directory.segmentPath(segment.number)
            let found = SegmentReader.damages(path: path, expecting: segment.identity)
            if found.isEmpty {
                segments.append(segment)
                continue
            }
            try refuseEnvironment(found)
            report.damages += found.map(\.description)
            let deleted = contents.tombstones.removeValue(forKey: segment.number)
            let reader = openDamaged(path, expecting: segment.identity.file)
            let identity = try salvage(
                path, reader: reader, schema: contents.schema, deleted: deleted, rowCount: segment.rowCount,
                reason: found[0].description)
            guard let identity else { continue }
            let saved = SegmentInfo(
                number: segment.number, firstRowNumber: segment.firstRowNumber,
                addedGeneration: segment.addedGeneration, identity: identity)
            segments.append(saved)
            let named = report.lostRows.filter { $0.file == segment.fileName }.reduce(0) { $0 + ($1.rows?.count ?? 0) }
            // Deleted rows among the lost ones are named too.
            if saved.rowCount + named < segment.rowCount - (deleted?.deletedCount ?? 0) {
                report.lostRows.append(
                    LostRows(
                        file: segment.fileName, rows: nil, identifiers: nil,
                        reason: "an interrupted repair has saved \(saved.rowCount) of \(segment.rowCount) rows; the "
                            + "original is in \(directory.quarantinePath)"))
            }
        }
        contents.segments = segments
    }

    private mutating func mendSnapshots(of contents: inout CatalogContents) throws {
        for (name, record) in contents.snapshots {
            var found: [StoreError] = []
            for segment in record.segments where found.isEmpty {
                found = SegmentReader.damages(
                    path: directory.segmentPath(segment.number), expecting: segment.identity)
            }
            try refuseEnvironment(found)
            guard !found.isEmpty else { continue }
            contents.snapshots[name] = nil
            report.droppedSnapshots.append(name)
            report.damages.append("snapshot \(name) needs a file that is missing or damaged")
        }
    }

    private mutating func mendCurvatures(of contents: inout CatalogContents) throws {
        var sound: [CurvatureRecord] = []
        for record in contents.curvatures {
            let path = directory.curvaturePath(record.digest)
            do throws(StoreError) {
                let file = try CurvatureFile(path: path, record: record, schema: contents.schema)
                if let damage = file.damages().first { throw damage }
                sound.append(record)
            } catch {
                try refuseEnvironment([error])
                report.damages.append(error.description)
                if try fileStatus(path) != nil { try quarantine(path) }
                if contents.state.activeCurvature == record.digest { contents.state.activeCurvature = nil }
            }
        }
        contents.curvatures = sound
        try mendCurvaturesOfSnapshots(&contents)
    }

    /// A named snapshot that had a damaged curvature keeps its rows, and has none.
    private mutating func mendCurvaturesOfSnapshots(_ contents: inout CatalogContents) throws {
        let sound = Set(contents.curvatures.map(\.digest))
        for (name, snapshot) in contents.snapshots {
            guard let record = snapshot.curvature, !sound.contains(record.digest) else { continue }
            let path = directory.curvaturePath(record.digest)
            do throws(StoreError) {
                let file = try CurvatureFile(path: path, record: record, schema: snapshot.schema)
                if let damage = file.damages().first { throw damage }
            } catch {
                try refuseEnvironment([error])
                report.damages.append("snapshot \(name) has lost its curvature: \(error)")
                if try fileStatus(path) != nil { try quarantine(path) }
                contents.snapshots[name]?.curvature = nil
            }
        }
    }

    /// A reader of a file whose pages may be damaged, by what the catalog says or what its tail says; nil without a footer.
    func openDamaged(_ path: String, expecting identity: PagedFileIdentity?) -> SegmentReader? {
        guard let file = try? ReadableFile(path: path) else { return nil }
        if let identity, let reader = try? SegmentReader(file: file, expectingFile: identity) { return reader }
        guard let tail = try? PagedFileReader.readTail(file) else { return nil }
        return try? SegmentReader(file: file, expectingFile: PagedFileIdentity(tail))
    }

    /// Writes the live rows of undamaged blocks under the segment's own name, and moves the original to quarantine.
    ///
    /// Gives the new identity, nil if nothing could be saved. Names the rest in the report.
    mutating func salvage(
        _ path: String, reader: SegmentReader?, schema: StoreSchema, deleted: Tombstones?, rowCount: Int?,
        reason: String
    ) throws -> SegmentIdentity? {
        let name = path.split(separator: "/").last.map(String.init) ?? path
        guard let reader, reader.schema == schema else {
            report.lostRows.append(
                LostRows(
                    file: name, rows: rowCount.map { 0..<$0 }, identifiers: nil,
                    reason: reader == nil ? reason : "it has other layers or another encoding than the store"))
            if try fileStatus(path) != nil { try quarantine(path) }
            return nil
        }
        // A file that is not the one the catalog means has other rows: its tombstones say nothing.
        let deleted = deleted?.rowCount == reader.rowCount ? deleted : nil
        var rows = GatheredRows()
        for block in 0..<reader.blockCount {
            let range = reader.rows(ofBlock: block)
            let live = range.filter { deleted?.isDeleted($0) != true }.map { $0 - range.lowerBound }
            switch reader.condition(ofBlock: block) {
            case .lost(let damage):
                let identifiers = (try? reader.readIdentifiers(block: block)).map { all in live.map { all[$0] } }
                report.lostRows.append(
                    LostRows(file: name, rows: range, identifiers: identifiers, reason: damage.description))
            case .saved(let substitutes):
                rows.append(BlockPart(reader: reader, block: block, rows: live, substitutes: substitutes))
                let identifiers = try reader.readIdentifiers(block: block)
                for field in substitutes?.lostFields.sorted() ?? [] {
                    report.lostFields.append(
                        LostField(file: name, field: field, rows: range, identifiers: live.map { identifiers[$0] }))
                }
            }
        }
        guard rows.rowCount > 0 else {
            try quarantine(path)
            return nil
        }
        var writer = try SegmentWriter(
            schema: schema, temporaryPath: directory.temporaryPath + "/writing-" + name, provenance: reader.provenance)
        while rows.rowCount > 0 { try writer.append(rows.take(min(rows.rowCount, schema.rowsPerBlock))) }
        let sealedPath = directory.temporaryPath + "/" + name
        let identity = try writer.seal(as: sealedPath)
        try quarantine(path, replacingBy: sealedPath)
        report.salvagedFiles.append(name)
        return identity
    }
}

/// Throws what is no damage: a file that this process may not read, or one too many, must not be put aside as broken.
func refuseEnvironment(_ errors: [StoreError]) throws(StoreError) {
    for error in errors where error.category == .environment {
        switch error {
        case .file(.missing): continue
        case .file(.failed(_, _, let code)) where code == .ioError: continue
        default: throw error
        }
    }
}
