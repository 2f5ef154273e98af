import Curvature
import Engine
import Interchange
import Schema

/// What `estimate` says: a model, what its store takes in each encoding, and a fit.
struct EstimateReport {
    let model: DescribedModel
    let queries: Int
    /// By encoding, in the order of `Encoding.allCases`.
    let encodings: [Kept]
    /// Which of them was asked for.
    let chosen: Int
    let curvatureRank: Int
    let fit: Result<FitEstimate, any Error>
    let isMeasured: Bool

    /// A store in one encoding.
    struct Kept {
        let storage: StorageEstimate
        let scan: Result<ScanEstimate, any Error>
    }

    private var storage: StorageEstimate { encodings[chosen].storage }

    // MARK: For people

    func printText() {
        standardOutput(layerTable() + "\n")
        standardOutput(encodingTable() + "\n")
        let ratio = Double(storage.fullMatrixBytesPerExample) / storage.bytesPerExample
        let matrices = "\(grouped(storage.fullMatrixBytesPerExample)) bytes"
        func bytes(_ value: Double) -> String { grouped(Int(value.rounded())) }
        standardOutput(
            "\(storage.schema.encoding.name): \(bytes(storage.factorBytesPerExample)) bytes/example of "
                + "\(storage.schema.layers.contains { $0.rank == nil } ? "gradients" : "factors"), "
                + "\(bytes(storage.normBytesPerExample)) of norms and error bounds, "
                + "\(bytes(storage.indexBytesPerExample)) of ids and indexes; "
                + (ratio >= 1
                    ? "\(String(oneDecimal: ratio)) times smaller than full matrices in f16, \(matrices)"
                    : "\(String(oneDecimal: 1 / ratio)) times larger than full matrices in f16, \(matrices): "
                        + "choose a smaller rank or encoding") + "\n")
        standardOutput(fitText() + "\n")
        guard !isMeasured else { return }
        standardOutput("times are those of an ordinary machine: 'lorif calibrate' measures this one\n")
    }

    private func layerTable() -> String {
        var rows = [["layers", "count", "size", "stored", "rank"]]
        for kind in kinds() {
            rows.append([
                kind.name, grouped(kind.count), "\(grouped(kind.layer.inputs))×\(grouped(kind.layer.outputs))",
                "\(grouped(kind.stored.inputDimension))×\(grouped(kind.stored.outputDimension))",
                kind.stored.rank.map(grouped) ?? "full",
            ])
        }
        let weights = model.layers.reduce(0.0) { $0 + Double($1.inputs) * Double($1.outputs) }
        let title =
            model.title.map {
                "\($0): \(grouped(model.layers.count)) layers of \(grouped(Int(min(weights, 1e18)))) weights, "
                    + "\(grouped(storage.schema.gradientLength)) numbers in a projected gradient\n"
            } ?? ""
        return title + table(rows, right: [1, 2, 3, 4])
    }

    private func encodingTable() -> String {
        let scanned = queries == 1 ? "one query" : "\(grouped(queries)) queries"
        var rows = [
            ["", "encoding", "bytes/example", countText(storage.exampleCount), "scan, \(scanned)", "memory", ""]
        ]
        for (place, kept) in encodings.enumerated() {
            var row = [
                place == chosen ? "*" : "", kept.storage.schema.encoding.name,
                grouped(Int(kept.storage.bytesPerExample.rounded())), byteText(kept.storage.storeBytes),
            ]
            switch kept.scan {
            case .success(let scan):
                row += [
                    durationText(scan.scanSeconds), byteText(scan.memoryBytes), scan.isFromDisk ? "from disk" : "",
                ]
            case .failure(EngineError.memoryTooSmall(let needed, _)):
                row += ["–", byteText(needed), "more than queries take: 'lorif query --memory'"]
            case .failure(let error):
                row += ["–", "", CommandFailure(error)?.message ?? "\(error)"]
            }
            rows.append(row)
        }
        return table(rows, right: [2, 3, 4, 5])
    }

    private func fitText() -> String {
        let curvature = "curvature of rank \(grouped(curvatureRank)): \(byteText(storage.curvatureBytes)); "
        switch fit {
        case .success(let fit):
            return curvature + "a fit takes about \(durationText(fit.seconds)) and \(byteText(fit.plan.memoryBytes)) "
                + "of memory: \(algorithmText(fit.plan)), \(operationText(fit.plan.operationCount)), "
                + "\(byteText(fit.byteCount)) to read"
        case .failure(CurvatureError.insufficientMemory(_, _, _, let needed, let budget)):
            return curvature + "a fit takes \(byteText(needed)) of memory at least, \(byteText(budget)) are allowed: "
                + "give it more with --memory, or lower --curvature-rank, --d1 or --d2"
        case .failure(let error):
            return curvature + (CommandFailure(error)?.message ?? "\(error)")
        }
    }

    private func countText(_ count: Int) -> String { "\(grouped(count)) example\(count == 1 ? "" : "s")" }

    private func algorithmText(_ plan: FitPlan) -> String {
        let names = Set(plan.groups.map(\.algorithm.rawValue)).sorted().joined(separator: " and ")
        return "\(names), \(plan.passes) \(plan.passes == 1 ? "pass" : "passes")"
    }

    /// Layers that differ in numbers only, the numbers as stars.
    private func kinds() -> [(name: String, count: Int, layer: LinearLayer, stored: LayerSchema)] {
        struct Kind: Hashable {
            let name: String
            let inputs, outputs: Int
            let rank: Int?
        }
        var places: [Kind: Int] = [:]
        var kinds: [(name: String, count: Int, layer: LinearLayer, stored: LayerSchema)] = []
        for (layer, stored) in zip(model.layers, storage.schema.layers) {
            let name = layer.name.split(separator: ".").map { $0.allSatisfy(\.isNumber) ? "*" : String($0) }
                .joined(separator: ".")
            let kind = Kind(name: name, inputs: layer.inputs, outputs: layer.outputs, rank: stored.rank)
            if let place = places[kind] {
                kinds[place].count += 1
            } else {
                places[kind] = kinds.count
                kinds.append((name, 1, layer, stored))
            }
        }
        return kinds
    }

    // MARK: For programs

    func printJSON() throws {
        let fit = try? fit.get()
        try lorif.printJSON(
            Document(
                model: model.title, examples: storage.exampleCount, queries: queries,
                layers: zip(model.layers, storage.schema.layers).map { layer, stored in
                    Layer(
                        name: layer.name, inputs: layer.inputs, outputs: layer.outputs, d1: stored.inputDimension,
                        d2: stored.outputDimension, rank: stored.rank)
                },
                encoding: storage.schema.encoding.name,
                fullMatrixF16BytesPerExample: storage.fullMatrixBytesPerExample,
                encodings: encodings.map(Encoded.init), curvatureRank: curvatureRank,
                curvatureBytes: storage.curvatureBytes, fitSeconds: fit?.seconds, fitMemoryBytes: fit?.plan.memoryBytes,
                fitFlops: fit?.plan.operationCount, fitBytesRead: fit?.byteCount, isCalibrated: isMeasured,
                notes: model.notes))
    }

    private struct Document: Encodable {
        let model: String?
        let examples, queries: Int
        let layers: [Layer]
        let encoding: String
        let fullMatrixF16BytesPerExample: Int
        let encodings: [Encoded]
        let curvatureRank, curvatureBytes: Int
        /// null where the fit does not fit into the memory that it may take.
        let fitSeconds: Double?
        let fitMemoryBytes: Int?
        let fitFlops: Double?
        let fitBytesRead: Int?
        let isCalibrated: Bool
        let notes: [String]
    }

    private struct Layer: Encodable {
        let name: String
        let inputs, outputs, d1, d2: Int
        let rank: Int?
    }

    private struct Encoded: Encodable {
        let encoding: String
        let factorBytesPerExample, normBytesPerExample, indexBytesPerExample, bytesPerExample: Double
        let storeBytes: Int
        /// null where not even one query fits into the memory that queries take.
        let preparationSeconds, scanSeconds: Double?
        let queryMemoryBytes: Int?
        let isFromDisk: Bool?

        init(_ kept: Kept) {
            let scan = try? kept.scan.get()
            encoding = kept.storage.schema.encoding.name
            factorBytesPerExample = kept.storage.factorBytesPerExample
            normBytesPerExample = kept.storage.normBytesPerExample
            indexBytesPerExample = kept.storage.indexBytesPerExample
            bytesPerExample = kept.storage.bytesPerExample
            storeBytes = kept.storage.storeBytes
            preparationSeconds = scan?.preparationSeconds
            scanSeconds = scan?.scanSeconds
            queryMemoryBytes = scan?.memoryBytes
            isFromDisk = scan?.isFromDisk
        }
    }
}
