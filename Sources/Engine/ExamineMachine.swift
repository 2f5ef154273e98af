import Files
import Foundation
import Kernels
import LinearAlgebra
import Store

/// What of this machine matters to `lorif`: processor, memory, libraries, limits. Measures nothing and writes nothing.
public func examineMachine() -> [Finding] {
    processorFindings() + memoryFindings() + [machineModelFinding()] + libraryFindings() + limitFindings()
}

private func processorFindings() -> [Finding] {
    let machine = MachineModel.Machine.current
    let isPortable = machine.kernelTier == "portable"
    let flags = (systemFile("/proc/cpuinfo") ?? "").split(separator: "\n").first { $0.hasPrefix("flags") } ?? ""
    let features = ["avx2", "fma", "f16c", "avx512f", "avx512_vnni"].filter {
        flags.split(separator: " ").contains(Substring($0))
    }
    let threads = machine.coreCount == 1 ? "1 processor" : "\(machine.coreCount) processors"
    return [
        Finding(
            "machine", "processor",
            "\(machine.processor), \(threads)\(features.isEmpty ? "" : ", " + features.joined(separator: " "))"),
        Finding(
            "machine", "kernels", machine.kernelTier, level: isPortable ? .warn : .ok,
            advice: isPortable
                ? "scans use no vector instructions here and take several times as long; a processor with AVX2 has them"
                : nil),
    ]
}

private func memoryFindings() -> [Finding] {
    let total = (systemFile("/proc/meminfo") ?? "").split(separator: "\n").first { $0.hasPrefix("MemTotal:") }
        .flatMap { $0.split(separator: " ").dropFirst().first }.flatMap { Int($0) }.map { $0 << 10 }
    let available = availableMemoryByteCount()
    var findings: [Finding] = []
    if let total, let available {
        let isLittle = available < 1 << 30
        findings.append(
            Finding(
                "machine", "memory", "\(gibibytes(total)), \(gibibytes(available)) available",
                level: isLittle ? .warn : .ok,
                advice: isLittle
                    ? "stores are read through the page cache, which has little room; give queries less with --memory"
                    : nil))
    }
    if let pages = systemFile("/sys/kernel/mm/transparent_hugepage/enabled"), let chosen = bracketed(pages) {
        findings.append(Finding("machine", "transparent huge pages", chosen))
    }
    return findings
}

private func bracketed(_ text: String) -> String? {
    text.split(separator: "[").dropFirst().first?.split(separator: "]").first.map(String.init)
}

private func gibibytes(_ count: Int) -> String { String(format: "%.1f GiB", Double(count) / Double(1 << 30)) }

/// Whether plans know this machine.
private func machineModelFinding() -> Finding {
    let path = MachineModel.cachePath
    guard let written = try? FileManager.default.attributesOfItem(atPath: path)[.modificationDate] as? Date else {
        return Finding(
            "machine", "measured rates", "none in \(path)", level: .warn,
            advice:
                "plans go by the rates of an ordinary machine; 'lorif calibrate FOLDER' measures this one in ten seconds"
        )
    }
    guard MachineModel.load() != nil else {
        return Finding(
            "machine", "measured rates", "\(path) is of another machine or release, or damaged", level: .warn,
            advice: "it is not used; 'lorif calibrate FOLDER' measures this machine")
    }
    let days = max(0, Int(Date().timeIntervalSince(written) / 86_400))
    return Finding("machine", "measured rates", "\(path), \(days) \(days == 1 ? "day" : "days") old")
}

private func libraryFindings() -> [Finding] {
    let library = BLASLibrary.loaded
    var findings = [
        Finding("libraries", "BLAS", "\(library.configuration); kernels of \(library.kernels), \(library.parallelism)")
    ]
    let environment = ProcessInfo.processInfo.environment
    if let forced = environment["OPENBLAS_CORETYPE"] {
        findings.append(
            Finding(
                "libraries", "OPENBLAS_CORETYPE", forced, level: .warn,
                advice:
                    "it overrules the kernels that OpenBLAS would choose for this processor; unset it unless that is meant"
            ))
    }
    let threads = ["OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"].filter { environment[$0] != nil }
    if !threads.isEmpty {
        findings.append(
            Finding(
                "libraries", "BLAS threads",
                threads.map { "\($0)=\(environment[$0] ?? "")" }.joined(separator: " ")
                    + "; not used: lorif runs one-threaded BLAS on threads of its own (--threads)"))
    }
    findings += storageLibraryVersions.map { Finding("libraries", $0.name, $0.version) }
    let maps = (try? String(contentsOfFile: "/proc/self/maps", encoding: .utf8)) ?? ""
    let runtime = maps.split(separator: "\n").first { $0.hasSuffix("libswiftCore.so") }?.split(separator: " ").last
    findings.append(
        Finding("libraries", "Swift runtime", runtime.map(String.init) ?? "part of the program"))
    return findings
}

private func limitFindings() -> [Finding] {
    func text(_ value: Int?) -> String { value.map(String.init) ?? "unlimited" }
    let files = ProcessLimit.openFiles.value
    let hasFewFiles = files.map { $0 < 1024 } ?? false
    let size = ProcessLimit.fileSize.value
    let space = ProcessLimit.addressSpace.value
    return [
        Finding(
            "limits", "open files", text(files), level: hasFewFiles ? .warn : .ok,
            advice: hasFewFiles
                ? "a store with more segments than that cannot be read at one time; raise it: ulimit -Hn" : nil),
        Finding(
            "limits", "file size", text(size), level: size == nil ? .ok : .warn,
            advice: size == nil ? nil : "segments and scores beyond it cannot be written; raise it: ulimit -f unlimited"
        ),
        Finding(
            "limits", "address space", text(space), level: space == nil ? .ok : .warn,
            advice: space == nil ? nil : "segments are mapped as a whole and may not fit; raise it: ulimit -v unlimited"
        ),
    ]
}
