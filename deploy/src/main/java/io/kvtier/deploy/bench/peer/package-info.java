/**
 * Other projects' attention kernels, run beside ours. A peer runs in a process of its own and is
 * installed when it is first measured, never by the build.
 */
@NullMarked
package io.kvtier.deploy.bench.peer;

import org.jspecify.annotations.NullMarked;
