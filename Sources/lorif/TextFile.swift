import Files

/// Writes a text under its name in one step, once the disk has it; what was there is replaced. Devices and pipes are refused: a
/// name of theirs must not be given to a file.
func writeText(_ text: String, toFile path: String) throws {
    let directory = parentDirectory(of: path)
    func refuse(_ reason: String) -> CommandFailure {
        CommandFailure(code: .inputRefused, message: "\(path) cannot be written: \(reason)")
    }
    guard try fileStatus(directory)?.kind == .directory else {
        throw refuse("there is no folder \(directory); make it with 'mkdir -p \(directory)'")
    }
    if let kind = try fileStatus(path)?.kind {
        guard kind != .directory else { throw refuse("it is a directory") }
        guard kind == .regular else { throw refuse("it is no regular file") }
    }
    let number = String(UInt64.random(in: .min ... .max), radix: 36)
    let file = try DurableFile(temporaryPath: "\(directory)/.lorif-\(number).tmp", isForOthers: true)
    try file.write(Array(text.utf8).span.bytes, at: 0)
    try file.seal(as: path, replacing: true)
}
