import ArgumentParser
import Checksum
import Engine
import Format
import Interchange
import Schema
import Store

/// `lorif inspect`: what is in a store.
struct Inspect: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show what a store holds.",
        discussion: """
            Without options a summary. --segments, --pages, --layers, --curvature and --basis show those parts; --example shows one row: where it \
            is, its metadata, and the norm of its gradient in every layer.

              lorif inspect store --layers
              lorif inspect store --example train-000017 --json
            """)

    @Argument(help: "The store.")
    var store: String
    @Flag(help: "Show every segment file and what its columns take.")
    var segments = false
    @Flag(help: "Show every page of every segment file.")
    var pages = false
    @Flag(help: "Show every layer.")
    var layers = false
    @Flag(help: "Show every fitted curvature.")
    var curvature = false
    @Flag(help: "Show the whitening basis.")
    var basis = false
    @Option(help: ArgumentHelp("Show one example.", valueName: "id"))
    var example: String?
    @Option(help: ArgumentHelp("Show the store as it was when it got this name.", valueName: "name"))
    var snapshot: String?
    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        guard [segments, pages, layers, curvature, basis, example != nil].filter({ $0 }).count <= 1 else {
            throw ValidationError("give one of --segments, --pages, --layers, --curvature, --basis and --example")
        }
    }

    func run() throws {
        try show(try Snapshot.open(at: store, named: snapshot))
    }

    /// What is in an open store.
    func show(_ snapshot: Snapshot) throws {
        if segments {
            try showSegments(snapshot)
        } else if pages {
            try showPages(snapshot)
        } else if layers {
            try showLayers(snapshot)
        } else if curvature {
            try showCurvature(snapshot)
        } else if basis {
            try showBasis(snapshot, json: json)
        } else if let example {
            try showExample(example, snapshot)
        } else {
            try showSummary(snapshot)
        }
    }

    // MARK: - Summary

    private struct Summary: Encodable {
        let store, identity: String
        let generation: UInt64
        let rows, deletedRows, segments, layers: Int
        let encoding: String
        let bytes: Int
        let bytesPerExample: Double?
        let fullMatrixF16BytesPerExample: Int
        let basis, activeCurvature: String?
        let curvatures, ingestedFiles: Int
    }

    private func showSummary(_ snapshot: Snapshot) throws {
        let byteCount = snapshot.segments.reduce(0) { $0 + $1.identity.fileLength }
        let summary = Summary(
            store: store, identity: snapshot.identity.description, generation: snapshot.generation,
            rows: snapshot.rowCount, deletedRows: snapshot.deletedRowCount, segments: snapshot.segments.count,
            layers: snapshot.schema.layers.count, encoding: snapshot.schema.encoding.name, bytes: byteCount,
            bytesPerExample: snapshot.rowCount > 0 ? Double(byteCount) / Double(snapshot.rowCount) : nil,
            fullMatrixF16BytesPerExample: 2 * snapshot.schema.gradientLength,
            basis: snapshot.schema.basis?.description, activeCurvature: snapshot.activeCurvature?.description,
            curvatures: snapshot.curvatures.count,
            ingestedFiles: snapshot.ingests.count)
        if json { return try printJSON(summary) }
        var rows = [
            ["store", "\(summary.store) (\(summary.identity))"],
            ["generation", "\(summary.generation)"],
            [
                "rows",
                grouped(summary.rows) + (summary.deletedRows > 0 ? ", \(grouped(summary.deletedRows)) deleted" : ""),
            ],
            ["layers", "\(grouped(summary.layers)), \(summary.encoding)"],
            ["segments", "\(grouped(summary.segments)), \(byteText(summary.bytes))"],
        ]
        if let bytesPerExample = summary.bytesPerExample {
            rows.append([
                "bytes/example",
                "\(grouped(Int(bytesPerExample.rounded()))) (full matrices in f16: \(grouped(summary.fullMatrixF16BytesPerExample)))",
            ])
        }
        if let basis = summary.basis { rows.append(["whitened by", basis]) }
        rows.append(["ingested files", grouped(summary.ingestedFiles)])
        rows.append([
            "curvature", summary.activeCurvature.map { "\($0.prefix(12)) of \(summary.curvatures)" } ?? "none",
        ])
        standardOutput(table(rows))
    }

    // MARK: - Segments

    private struct SegmentReport: Encodable {
        struct Column: Encodable {
            let kind, field: String
            let pages, rawBytes, storedBytes: Int
        }
        let file: String
        let rows, liveRows: Int
        let generation: UInt64
        let bytes: Int
        let digest: String
        let columns: [Column]
    }

    private func showSegments(_ snapshot: Snapshot) throws {
        var reports: [SegmentReport] = []
        for (index, segment) in snapshot.segments.enumerated() {
            let reader = try snapshot.segmentReader(index)
            reports.append(
                SegmentReport(
                    file: segment.fileName, rows: segment.rowCount, liveRows: snapshot.liveRowCount(segment: index),
                    generation: segment.addedGeneration, bytes: segment.identity.fileLength,
                    digest: segment.identity.footerDigest.description,
                    columns: reader.columnSummaries.map {
                        SegmentReport.Column(
                            kind: "\($0.kind)", field: $0.fieldName, pages: $0.pageCount, rawBytes: $0.rawByteCount,
                            storedBytes: $0.storedByteCount)
                    }))
        }
        if json { return try printJSON(reports) }
        for report in reports {
            standardOutput(
                "\(report.file)  \(grouped(report.rows)) rows, \(grouped(report.liveRows)) live  \(byteText(report.bytes))  "
                    + "generation \(report.generation)\n")
            var rows = [["", "column", "pages", "stored", "bytes/row", "of raw"]]
            for column in report.columns {
                rows.append([
                    "", column.field.isEmpty ? column.kind : "\(column.kind) \(column.field)", grouped(column.pages),
                    byteText(column.storedBytes),
                    String(oneDecimal: Double(column.storedBytes) / Double(report.rows)),
                    percentText(Double(column.storedBytes) / Double(max(1, column.rawBytes))),
                ])
            }
            standardOutput(table(rows, right: [2, 3, 4, 5]))
        }
        if reports.isEmpty { standardOutput("no segments\n") }
    }

    // MARK: - Pages

    private struct PageReport: Encodable {
        let file, column: String
        let block, offset, storedBytes, rawBytes: Int
        let checksum: String
    }

    private func showPages(_ snapshot: Snapshot) throws {
        var reports: [PageReport] = []
        for (index, segment) in snapshot.segments.enumerated() {
            for page in try snapshot.segmentReader(index).pageSummaries {
                let digits = String(page.checksum, radix: 16)
                reports.append(
                    PageReport(
                        file: segment.fileName, column: page.column, block: page.block, offset: page.offset,
                        storedBytes: page.storedByteCount, rawBytes: page.rawByteCount,
                        checksum: String(repeating: "0", count: 16 - digits.count) + digits))
            }
        }
        if json { return try printJSON(reports) }
        var rows = [["file", "offset", "column", "block", "stored", "raw", "checksum"]]
        for report in reports {
            rows.append([
                report.file, "\(report.offset)", report.column, "\(report.block)", "\(report.storedBytes)",
                "\(report.rawBytes)", report.checksum,
            ])
        }
        standardOutput(table(rows, right: [1, 3, 4, 5]))
    }

    // MARK: - Layers

    private func showLayers(_ snapshot: Snapshot) throws {
        let layers = snapshot.schema.layers
        if json { return try printJSON(layers.map(LayerReport.init)) }
        var rows = [["layer", "d1", "d2", "form", "numbers/example"]]
        for layer in layers {
            rows.append([
                layer.name, "\(layer.inputDimension)", "\(layer.outputDimension)",
                layer.rank.map { "rank \($0)" } ?? "full", grouped(layer.storedNumberCount),
            ])
        }
        standardOutput(table(rows, right: [1, 2, 4]))
    }

    // MARK: - Curvature

    private struct CurvatureReport: Encodable {
        let curvature: String
        let active: Bool
        let scope, algorithm, fit: String
        let rank, rows: Int
        let generation: UInt64
        let capturedEnergy: Double
        let bytes: Int
        let stale: Bool
        let seenShare: Double
        let deletedRows: Int
        let coordinates: CoordinatesDone?
        let groups: [FittedGroupReport]
    }

    private func showCurvature(_ snapshot: Snapshot) throws {
        let versions = snapshot.curvatureVersions
        let groups = try versions.map { version in
            try snapshot.readCurvature(version.record.digest).map { FittedGroup($0, schema: snapshot.schema) }
        }
        if json {
            return try printJSON(
                zip(versions, groups).map { version, groups in
                    let fitted = version.record.description
                    return CurvatureReport(
                        curvature: version.record.digest.description, active: version.isActive, scope: fitted.scope,
                        algorithm: fitted.algorithm, fit: fitted.provenance, rank: fitted.rank,
                        rows: fitted.fittedRowCount, generation: fitted.fittedGeneration,
                        capturedEnergy: fitted.capturedEnergy, bytes: version.record.identity.fileLength,
                        stale: !version.coverage.isCurrent, seenShare: version.coverage.seenShare,
                        deletedRows: version.coverage.deletedRowCount,
                        coordinates: snapshot.coordinatesCoverage(of: version.record.digest).map(CoordinatesDone.init),
                        groups: groups.map(FittedGroupReport.init))
                })
        }
        for (version, groups) in zip(versions, groups) {
            let fitted = version.record.description
            standardOutput(
                "\(version.record.digest)\(version.isActive ? "  active" : "")  \(fitted.scope)  fitted on "
                    + "\(grouped(fitted.fittedRowCount)) rows at generation \(fitted.fittedGeneration)"
                    + "\(version.coverage.isCurrent ? "" : ", which have changed since")  "
                    + "\(byteText(version.record.identity.fileLength))\n")
            standardOutput(fittedGroupTable(groups))
            if let coverage = snapshot.coordinatesCoverage(of: version.record.digest) {
                standardOutput("coordinates: \(coordinatesText(coverage))\n")
            }
        }
        if versions.isEmpty { standardOutput("no curvature; run 'lorif fit \(store)'\n") }
    }

    // MARK: - One example

    private struct ExampleReport: Encodable {
        struct Layer: Encodable {
            let layer: String
            /// Upper bounds, as stored: of the gradient's norm, and of what was lost of it.
            let norm, residualNorm: Float
        }
        let id, segment: String
        let row: Int
        let metadata: [String: String]?
        let layers: [Layer]
    }

    private func showExample(_ identifier: String, _ snapshot: Snapshot) throws {
        guard let location = try snapshot.locate(identifier: identifier) else {
            throw EngineError.exampleUnknown(
                id: identifier, nearest: try snapshot.nearestIdentifier(to: identifier))
        }
        let found = try snapshot.segmentReader(location.segment).readRow(location.row, withTiles: false)
        let report = ExampleReport(
            id: identifier, segment: snapshot.segments[location.segment].fileName, row: location.row,
            metadata: found.metadata.map { record in
                Dictionary(uniqueKeysWithValues: record.fields.map { ($0.name, metadataText($0.value)) })
            },
            layers: snapshot.schema.layers.enumerated().map { index, layer in
                ExampleReport.Layer(
                    layer: layer.name, norm: found.norms[index], residualNorm: found.residualNorms[index])
            })
        if json { return try printJSON(report) }
        var rows = [["id", report.id], ["place", "row \(report.row) of \(report.segment)"]]
        for field in found.metadata?.fields ?? [] {
            rows.append([field.name, truncated(singleLine(metadataText(field.value)), to: 200)])
        }
        standardOutput(table(rows))
        standardOutput(
            table(
                [["layer", "norm", "norm of what factoring lost"]]
                    + report.layers.map {
                        [$0.layer, magnitudeText(Double($0.norm)), magnitudeText(Double($0.residualNorm))]
                    }, right: [1, 2]))
    }

    private func metadataText(_ value: MetadataValue) -> String {
        if case .string(let text) = value { text } else { JSONText.value(value) }
    }
}
