import Checksum
import Files
import Format
import Schema

extension StoreRepair {
    /// What the files alone tell: segments in the order of their numbers, rows whose ids come again later taken for deleted.
    mutating func rebuiltContents(
        identity: StoreIdentity, progress: (String) throws -> Void
    ) throws -> CatalogContents {
        var found: [(info: SegmentInfo, reader: SegmentReader)] = []
        var schema: StoreSchema?
        var nextSegmentNumber: UInt64 = 0
        var rowNumber: UInt64 = 0
        let names = try fileNames(inDirectory: directory.segmentsPath)
        // The last segment's schema is the store's: a compaction may have changed it.
        for name in names.reversed() where schema == nil {
            schema = openDamaged(directory.segmentsPath + "/" + name, expecting: nil)?.schema
        }
        for name in names {
            try progress(name)
            let path = directory.segmentsPath + "/" + name
            guard let number = segmentNumber(of: name) else {
                report.damages.append("\(path): not the name of a segment")
                try quarantine(path)
                continue
            }
            nextSegmentNumber = max(nextSegmentNumber, number + 1)
            let damages = SegmentReader.damages(path: path)
            try refuseEnvironment(damages)
            report.damages += damages.map(\.description)
            var reader = openDamaged(path, expecting: nil)
            if !damages.isEmpty || reader?.schema != schema {
                let saved = try salvage(
                    path, reader: reader, schema: schema ?? StoreSchema(layers: [], encoding: .f32), deleted: nil,
                    rowCount: nil, reason: damages.first?.description ?? "other layers than the last segment")
                guard saved != nil else { continue }
                reader = try SegmentReader(path: path)
            }
            guard let reader else { continue }
            found.append(
                (
                    SegmentInfo(
                        number: number, firstRowNumber: rowNumber, addedGeneration: 0, identity: reader.identity),
                    reader
                ))
            rowNumber += UInt64(reader.rowCount)
        }
        let state = StateRecord(
            storeIdentity: identity, generation: UInt64(found.count), transaction: 0,
            nextSegmentNumber: nextSegmentNumber,
            nextRowNumber: max(rowNumber, try lastNumber(in: found.map(\.reader))),
            recordCount: 0, recordDigest: 0, activeCurvature: nil)
        var contents = CatalogContents(
            state: state, schema: schema ?? StoreSchema(layers: [], encoding: .f32))
        contents.segments = found.map(\.info)
        contents.tombstones = try superseded(found)
        report.supersededRowCount = contents.deletedCount
        try addCurvatures(to: &contents)
        return contents
    }

    private func segmentNumber(of name: String) -> UInt64? {
        guard name.hasSuffix(".segment"), let number = UInt64(name.dropLast(8), radix: 16),
            SegmentInfo.fileName(number) == name, number < .max
        else { return nil }
        return number
    }

    /// One more than the largest id that is a decimal number: rows without ids must not get one that is taken.
    private func lastNumber(in readers: [SegmentReader]) throws -> UInt64 {
        var next: UInt64 = 0
        for reader in readers {
            for block in 0..<reader.blockCount {
                for identifier in try reader.readIdentifiers(block: block) {
                    if let number = UInt64(identifier), number < UInt64(Int.max) { next = max(next, number + 1) }
                }
            }
        }
        return next
    }

    /// Tombstones for the rows whose id a later segment has: they were replaced, deleted and added again, or compacted.
    private func superseded(_ found: [(info: SegmentInfo, reader: SegmentReader)]) throws -> [UInt64: Tombstones] {
        var tombstones: [UInt64: Tombstones] = [:]
        var lastSegment: [UInt64: Int] = [:]
        for position in found.indices.reversed() {
            let reader = found[position].reader
            // Candidates by the later segment that has their hash; the ids themselves decide.
            var suspects: [Int: [IdentifierCandidate]] = [:]
            for block in 0..<reader.blockCount {
                for identifier in try reader.readIdentifiers(block: block) {
                    let candidate = IdentifierCandidate(identifier)
                    if let later = lastSegment[candidate.hash], later != position {
                        suspects[later, default: []].append(candidate)
                    } else {
                        lastSegment[candidate.hash] = position
                    }
                }
            }
            var deleted = Tombstones(rowCount: reader.rowCount)
            for (later, candidates) in suspects {
                let sorted = candidates.sorted()
                let repeated = try found[later].reader.findIdentifiers(sorted).map { sorted[$0.candidate] }
                for match in try reader.findIdentifiers(repeated) { _ = deleted.delete(match.row) }
            }
            if deleted.deletedCount > 0 { tombstones[found[position].info.number] = deleted }
        }
        return tombstones
    }

    /// Takes in every sound curvature file; the one fitted last becomes the active one.
    private mutating func addCurvatures(to contents: inout CatalogContents) throws {
        for name in try fileNames(inDirectory: directory.curvaturePath) {
            let path = directory.curvaturePath + "/" + name
            do throws(StoreError) {
                let record = try CurvatureFile.record(ofFile: path)
                guard record.fileName == name else { throw StoreError.schemaDiffers(path: path) }
                contents.curvatures.append(record)
            } catch {
                try refuseEnvironment([error])
                report.damages.append(error.description)
                try quarantine(path)
            }
        }
        contents.curvatures.sort { $0.digest < $1.digest }
        let newest = contents.curvatures.max { $0.description.fittedGeneration < $1.description.fittedGeneration }
        contents.state.activeCurvature = newest?.digest
        contents.state.generation = max(contents.state.generation, newest?.description.fittedGeneration ?? 0)
    }
}
