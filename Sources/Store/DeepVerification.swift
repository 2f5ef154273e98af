import Dispatch
import Format
import Kernels
import Schema
import Synchronization

extension Snapshot {
    /// What checksums cannot tell: whether the numbers mean what they should. Every page must be sound already.
    ///
    /// Decodes every row: numbers finite, stored norms at least the true ones, residual norms finite; no id live twice in the
    /// store; sampled eigenvectors orthonormal; sampled coordinates those of the rows. `progress` gets the bytes read since the last call; false stops.
    /// Memory: a row block, and 24 bytes for each row.
    func deepDamages(progress: (Int) -> Bool) -> [StoreError] {
        var damages: [StoreError] = []
        for index in segments.indices {
            switch Result(catching: { () throws(StoreError) in try segmentReader(index) }) {
            case .failure(let error): damages.append(error)
            case .success(let reader):
                for block in 0..<reader.blockCount {
                    do throws(StoreError) {
                        damages += try normDamages(reader, block: block)
                    } catch {
                        damages.append(error)
                    }
                    guard progress(reader.identity.fileLength / reader.blockCount) else { return damages }
                }
            }
        }
        do throws(StoreError) {
            damages += try repeatedIdentifiers()
        } catch {
            damages.append(error)
        }
        for record in curvatures {
            do throws(StoreError) {
                let groups = try readCurvature(record.digest)
                for (number, group) in groups.enumerated() {
                    guard let error = group.sampledOrthogonalityError else { continue }
                    let limit = max(1e-3, 2 * group.details.orthogonalityError)
                    guard error <= limit else {
                        throw .curvatureShape(
                            what: "\(record.fileName): eigenvectors of group \(number)",
                            expected: "orthonormal to \(limit)", found: "\(error)")
                    }
                }
                damages += try sampledCoordinatesDamages(of: record, groups: groups)
            } catch {
                damages.append(error)
            }
            guard progress(record.identity.fileLength) else { return damages }
        }
        return damages
    }

    private func normDamages(_ reader: SegmentReader, block: Int) throws(StoreError) -> [StoreError] {
        let norms = try reader.readNorms(block: block)
        let lost = try reader.readResidualNorms(block: block)
        let first = reader.rows(ofBlock: block).lowerBound
        let results = Mutex<[(layer: Int, damages: [StoreError])]>([])
        DispatchQueue.concurrentPerform(iterations: schema.layers.count) { layer in
            var found: [StoreError] = []
            do throws(StoreError) {
                let tile = try reader.readTile(block: block, layer: layer)
                for (row, norm) in LayerNorms(of: tile).stored.enumerated() {
                    // What the writer computes is a hair above the value; a bound may lie anywhere from the value on.
                    let isBound = Double(norms[layer][row]) >= norm * (1 - 0x1p-20) && lost[layer][row] >= 0
                    guard !isBound || !norm.isFinite else { continue }
                    found.append(
                        .wrongNorm(
                            path: reader.path, layer: schema.layers[layer].name, row: first + row,
                            stored: norms[layer][row], found: norm))
                }
            } catch {
                found.append(error)
            }
            if !found.isEmpty { results.withLock { $0.append((layer, found)) } }
        }
        return results.withLock { $0 }.sorted { $0.layer < $1.layer }.flatMap(\.damages)
    }

    /// Ids that more than one live row has.
    private func repeatedIdentifiers() throws(StoreError) -> [StoreError] {
        var rows: [(hash: UInt64, location: RowLocation)] = []
        rows.reserveCapacity(rowCount)
        for index in segments.indices {
            let reader = try segmentReader(index)
            for block in 0..<reader.blockCount {
                for entry in try reader.readIndex(block: block) where isLive(segment: index, row: entry.row) {
                    rows.append((entry.hash, RowLocation(segment: index, row: entry.row)))
                }
            }
        }
        rows.sort { $0.hash < $1.hash }
        var damages: [StoreError] = []
        for place in rows.indices.dropFirst() where rows[place].hash == rows[place - 1].hash {
            let (a, b) = (rows[place - 1].location, rows[place].location)
            let identifier = try segmentReader(a.segment).identifier(ofRow: a.row)
            guard try segmentReader(b.segment).identifier(ofRow: b.row).utf8.elementsEqual(identifier.utf8) else {
                continue
            }
            damages.append(
                .identifierLiveTwice(
                    identifier: identifier, files: [a, b].map { segments[$0.segment].fileName }.sorted()))
        }
        return damages
    }
}

extension CurvatureGroupData {
    /// max |v_i·v_j − δ_ij| over neighbours and a few distant pairs, nil without vectors. O(rank · length).
    var sampledOrthogonalityError: Double? {
        let count = eigenvalues.count
        guard count > 0 else { return nil }
        func product(_ a: Int, _ b: Int) -> Double {
            let (first, second) = (a * gradientLength, b * gradientLength)
            var sum = 0.0
            for index in 0..<gradientLength { sum += Double(basis[first + index]) * Double(basis[second + index]) }
            return sum
        }
        var largest = 0.0
        for index in 0..<count {
            largest = max(largest, abs(product(index, index) - 1))
            for other in [index + 1, count - 1 - index] where other < count && other != index {
                largest = max(largest, abs(product(index, other)))
            }
        }
        return largest
    }
}
