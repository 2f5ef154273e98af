import Checksum
import Files
import Schema

extension Snapshot {
    /// Bytes of the coordinates files, for a progress bar.
    var coordinatesByteCount: Int {
        coordinatesPaths.reduce(0) { $0 + ((try? ReadableFile(path: $1.path))?.byteCount ?? 0) }
    }

    /// Coordinates files with what they must belong to.
    private var coordinatesPaths: [(path: String, curvature: String, segment: SegmentInfo)] {
        let segments = contents.segmentsByDigest
        let names = (try? directory.coordinatesFiles(contents)) ?? []
        return names.sorted().compactMap { name in
            guard let segment = segments[String(name.dropFirst(33).prefix(32))] else { return nil }
            return (directory.coordinatesPath + "/" + name, String(name.prefix(32)), segment)
        }
    }

    /// What is wrong with coordinates files: their ends and descriptions, or every byte.
    func coordinatesDamages(level: VerificationLevel, progress: (Int) -> Bool) -> [StoreError] {
        var damages: [StoreError] = []
        let named = contents.snapshots.values.compactMap(\.curvature)
        for (path, name, segment) in coordinatesPaths {
            guard let curvature = (curvatures + named).first(where: { $0.digest.description == name }) else { continue }
            do throws(StoreError) {
                let reader = try CoordinatesReader(path: path, curvature: curvature.digest, segment: segment)
                if level == .quick {
                    guard progress(reader.byteCount) else { return damages }
                } else {
                    var goesOn = true
                    damages += reader.damages {
                        goesOn = progress($0)
                        return goesOn
                    }
                    guard goesOn else { return damages }
                }
            } catch {
                // A writer may have removed it meanwhile: it is derived data.
                if case .file(.missing(_)) = error { continue }
                damages.append(error)
            }
        }
        return damages
    }

    private static let sampledRowsPerSegment = 4

    /// Coordinates of a few rows of each segment that are not those of the stored gradients, by plain sums in Double.
    ///
    /// O(rank · D) for each sampled row.
    func sampledCoordinatesDamages(
        of record: CurvatureRecord, groups: [CurvatureGroupData]
    ) throws(StoreError) -> [StoreError] {
        var damages: [StoreError] = []
        for index in segments.indices {
            guard let stored = try coordinates(of: record.digest, segment: index) else { continue }
            let description = stored.description
            guard description.ranks == groups.map(\.eigenvalues.count) else {
                damages.append(
                    .coordinatesDamaged(
                        path: stored.path, expected: "ranks \(groups.map(\.eigenvalues.count))",
                        found: "\(description.ranks)"))
                continue
            }
            let reader = try segmentReader(index)
            let step = max(1, description.rowCount / Self.sampledRowsPerSegment)
            for row in stride(from: step / 2, to: description.rowCount, by: step) {
                let tiles = try reader.readRow(row).tiles
                let block = row / description.rowsPerBlock
                for (number, group) in groups.enumerated() {
                    let found = try stored.read(block: block, group: number)
                        .selecting([row % description.rowsPerBlock])
                    let gradient = group.layers.flatMap { tiles[$0].gradientOfOneRow }
                    guard !group.agrees(found, gradient: gradient, encoding: description.encoding) else { continue }
                    damages.append(
                        .coordinatesDamaged(
                            path: stored.path, expected: "the coordinates of row \(row) in group \(number)",
                            found: "others"))
                }
            }
        }
        return damages
    }
}

extension LayerTile {
    /// The matrix of a tile of one row, row-major, in Double.
    fileprivate var gradientOfOneRow: [Double] {
        guard dense.isEmpty else { return dense.map(Double.init) }
        let (d1, d2) = (layer.inputDimension, layer.outputDimension)
        var matrix = [Double](repeating: 0, count: d1 * d2)
        for component in 0..<(layer.rank ?? 0) {
            for a in 0..<d1 {
                let factor = Double(left[component * d1 + a])
                for b in 0..<d2 { matrix[a * d2 + b] += factor * Double(right[component * d2 + b]) }
            }
        }
        return matrix
    }
}

extension CurvatureGroupData {
    /// Whether stored coordinates of one row are those of its gradient, within the rounding of their encoding.
    fileprivate func agrees(_ stored: EigenCoordinates, gradient: [Double], encoding: Encoding) -> Bool {
        let mean = trace / Double(gradientLength)
        var squaredNorm = 0.0
        for number in gradient { squaredNorm += number * number }
        let largest = stored.values.reduce(0) { max($0, abs(Double($1))) }
        // int8: half a step of a scale that is rounded up; f16: half a unit in the last of 11 bits.
        let step =
            switch encoding {
            case .int8: 0.505 / 127 * (1 + 0x1p-7)
            case .f16: 0x1p-11
            default: 0x1p-22
            }
        var energy = 0.0
        for k in eigenvalues.indices {
            var product = 0.0
            for index in 0..<gradientLength { product += Double(basis[k * gradientLength + index]) * gradient[index] }
            energy += product * product
            let scale = (eigenvalues[k] + mean).squareRoot()
            let tolerance = step * largest + 1e-9 * squaredNorm.squareRoot() / scale
            guard abs(Double(stored.values[k]) - product / scale) <= tolerance else { return false }
        }
        // Both come out of the same difference, whose terms are known to about 1e-15 of the norm.
        let outside = Double(stored.outsideNorms[0])
        return abs(outside * outside - max(0, squaredNorm - energy)) <= 1e-6 * outside * outside + 1e-12 * squaredNorm
    }
}
